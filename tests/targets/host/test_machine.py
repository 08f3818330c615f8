"""The state of a machine (this one, a Raspberry Pi, and one without /proc), and pinning to cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from targets import catalog
from targets.agent import local_agent
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.machine import busy_by_others, cpu_name, cpu_seconds, machine_state, pinned, taints

PI = {
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid asimddp\n"
    "CPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:        8245244 kB\nMemAvailable:    7000000 kB\n",
    "proc/loadavg": "0.10 0.20 0.30 1/200 999\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
}


def test_this_machine_is_described_in_json() -> None:
    state = machine_state()
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert state["usable_cores"] >= 1
    assert {"architecture", "python", "kernel", "os"} <= set(state)


def test_a_raspberry_pi_is_read(tmp_path: Path) -> None:
    for name, text in PI.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    state = machine_state(tmp_path)
    assert state["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert state["isa"] == ["asimd", "asimddp"]
    assert (state["governor"], state["mhz"], state["temperature_c"]) == ("ondemand", 2400.0, 51.25)
    assert state["throttled"] == "50000"
    assert state["memory_bytes"] == 8245244 * 1024
    assert state["load_average"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("driver", "tainted"),
    [
        pytest.param("acpi-cpufreq", True, id="row45-lowest frequency"),
        pytest.param("intel_pstate", False, id="row45-most Intel machines"),
        pytest.param("amd-pstate-epp", False, id="row45-most new AMD machines"),
    ],
)
def test_only_a_governor_that_keeps_the_lowest_frequency_taints(tmp_path: Path, driver: str, tainted: bool) -> None:
    frequency = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    frequency.mkdir(parents=True)
    (frequency / "scaling_governor").write_text("powersave\n")
    (frequency / "scaling_driver").write_text(f"{driver}\n")
    seen = machine_state(tmp_path)
    assert taints(seen, seen) == ("governor powersave",) * tainted
    assert seen["governor"].startswith("powersave")


def test_what_cannot_be_read_is_absent(tmp_path: Path) -> None:
    state = machine_state(tmp_path)
    assert not {"cpu", "board", "isa", "governor", "mhz", "load_average", "memory_bytes", "temperature_c"} & set(state)
    assert None not in state.values()


def state(**changes: Any) -> dict[str, Any]:
    quiet = {
        "load_average": [0.5, 0, 0],
        "usable_cores": 4,
        "governor": "ondemand",
        "mhz": 1800.0,
        "temperature_c": 50.0,
    }
    return quiet | {"throttled": "0"} | changes


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({}, ()),
        ({"load_average": [4.2, 0, 0]}, ("load 4.2 on 4 cores",)),
        ({"governor": "powersave"}, ("governor powersave",)),
        ({"mhz": 1500.0}, ("frequency fell from 1800 to 1500 MHz",)),
        ({"temperature_c": 81.0}, ("81 C",)),
        ({"throttled": "50005"}, ("under-voltage now", "throttled now")),
        ({"throttled": "50000"}, ("under-voltage since it was started", "throttled since it was started")),
        ({"throttled": "0x80008"}, ("soft temperature limit now",)),
    ],
)
def test_what_disturbs_a_measurement_is_told(after: dict[str, Any], said: tuple[str, ...]) -> None:
    assert taints(state(), state(**after)) == said


def test_a_machine_that_says_nothing_is_not_accused() -> None:
    assert taints({}, {}) == ()


def test_an_arm_processor_is_named_by_its_part(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nCPU implementer : 0x41\nCPU part : 0xd08\n")
    assert cpu_name(tmp_path) == "Cortex-A72"
    (tmp_path / "proc/cpuinfo").write_text(PI["proc/cpuinfo"])
    assert cpu_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"


# By its own CPU time, since a busy machine may give it little of a second.
SPIN = "import time\nwhile time.process_time() < 1.2: pass"


def test_what_this_process_and_its_children_do_is_not_the_work_of_others() -> None:
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    ended = cpu_seconds()
    assert ended["own_s"] - before["own_s"] > 0.5, "a child that ended"
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        # How much of a second it gets is for the other work on this machine to say.
        until = monotonic() + 20
        while cpu_seconds()["own_s"] - ended["own_s"] < 1 and monotonic() < until:
            sleep(0.1)
        after = cpu_seconds()
        child.kill()
    assert after["own_s"] - ended["own_s"] >= 1, "one that still runs"
    assert after["work_s"] - before["work_s"] > 1.5


def test_others_are_seen_at_work() -> None:
    quiet = [sys.executable, "-c", SPIN]
    before = cpu_seconds()
    # Its parent ends at once, so it is nobody's child any more.
    subprocess.run(["sh", "-c", '"$@" & ', "sh", *quiet], check=True)
    sleep(1)
    used = busy_by_others(before, cpu_seconds())
    assert used is not None
    assert used > 0.5


@pytest.mark.parametrize(
    ("cores", "worked", "said"),
    [
        (2, 10.0, ()),
        (2, 14.0, ("other processes kept 0.4 of 2 cores busy",)),
        (8, 16.0, ()),
        (1, 20.0, ("other processes kept 1.0 of 1 core busy",)),
    ],
)
def test_a_run_is_tainted_by_others_and_not_by_itself(cores: int, worked: float, said: tuple[str, ...]) -> None:
    first = state(cores=cores, work_s=100.0, own_s=50.0, clock_s=7.0)
    last = state(cores=cores, work_s=100.0 + worked, own_s=60.0, clock_s=17.0, load_average=[99.0, 0, 0])
    assert taints(first, last) == said


CORES = sorted(os.sched_getaffinity(0))
MISSING = os.cpu_count() or 0
needs_two = pytest.mark.skipif(len(CORES) < 2, reason="one core only: NOT checked")


def threads() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def allowed(thread: Path) -> str:
    lines = (thread / "status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))


@needs_two
@pytest.mark.parametrize("word", ["ort-cpu", "litert-cpu"])
def test_the_threads_of_a_runtime_keep_to_the_cores(word: str, request: pytest.FixtureRequest) -> None:
    model: Artifact = request.getfixturevalue("onnx_artifact" if word == "ort-cpu" else "tflite_artifact")
    before = threads()
    with pinned(CORES[1:2]), catalog.get(word).open(model, threads=2) as session:
        fresh = threads() - before
        assert fresh
        assert {allowed(thread) for thread in fresh} == {str(CORES[1])}
        assert session.facts.threads == 2
    assert sorted(os.sched_getaffinity(0)) == CORES


@pytest.mark.parametrize("cores", [[MISSING], [CORES[0], MISSING]], ids=["alone", "among others"])
def test_a_core_that_is_not_there_is_named_and_nothing_changes(cores: list[int]) -> None:
    with pytest.raises(RunFailed, match=f"{MISSING}.*may use {CORES[0]}") as caught, pinned(cores):
        pass
    assert "\n" not in str(caught.value)
    assert sorted(os.sched_getaffinity(0)) == CORES


@needs_two
def test_an_agent_is_pinned_by_request(onnx_artifact: Artifact) -> None:
    with closing(local_agent()) as agent:
        with pytest.raises(RunFailed, match="may use"):
            agent.request("pin", cores=[MISSING])
        agent.request("pin", cores=[CORES[1]])
        answer = agent.request("hello").header
    assert answer["machine"]["pinned"] == [CORES[1]]
