"""Timing while others work: interruptions are left out of a sample, and what is not quiet may pass but never fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.host.runtime_session import time_calls
from targets.session import TimingPlan, Timings, taints_of
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from tests.fixtures.timings import noisy_timings, ratio
from toolchain.gate.limits.speed import TimeLimit, judge_time
from toolchain.stats.decision import Outcome

Run = Callable[..., Finished]
SLICE_NS = 4_000_000
WATCHED = {"work_s": 100.0, "own_s": 10.0, "clock_s": 50.0, "cores": 2}
SPIN = "while True: pass"


def busy(one: Timings, cores: float) -> Timings:
    """The same timings from a machine of two cores of which others kept so many busy."""
    end = WATCHED | {"work_s": 110.0 + 10 * cores, "own_s": 20.0, "clock_s": 60.0}
    return replace(one, machine=WATCHED | {"end": end})


def sliced(one: Timings, every_ns: int = 3 * SLICE_NS) -> Timings:
    """The same timings where the system runs others for a slice whenever the file has worked for a while."""
    ends = np.cumsum(one.samples_ns)
    hit = np.flatnonzero(np.diff(ends // every_ns, prepend=0))
    samples = one.samples_ns.copy()
    samples[hit] += SLICE_NS
    return replace(one, samples_ns=samples, interrupted=tuple((int(index), SLICE_NS) for index in hit))


@pytest.mark.parametrize(
    ("most", "cores", "outcome"),
    [
        pytest.param(50e-6, 0.0, Outcome.FAIL, id="row45-quiet and too slow"),
        pytest.param(50e-6, 1.0, Outcome.INCONCLUSIVE, id="row45-busy and too slow"),
        pytest.param(200e-6, 1.0, Outcome.PASS, id="row45-busy and fast enough"),
    ],
)
@pytest.mark.parametrize("q", [50.0, 95.0])
def test_a_busy_machine_may_pass_a_limit_but_never_fails_it(
    q: float, most: float, cores: float, outcome: Outcome
) -> None:
    seen = busy(noisy_timings(np.random.default_rng(1)), cores)
    verdict = judge_time(TimeLimit(max=most), f"p{q:g}", q, seen)
    assert verdict.outcome is outcome, verdict.reason
    assert ("other processes kept 1.0 of 2 cores busy" in verdict.reason) == (cores > 0)
    if outcome is Outcome.INCONCLUSIVE:
        assert "stop what else runs here" in verdict.reason


def test_row46_a_ratio_of_a_busy_machine_never_fails_either() -> None:
    random = np.random.default_rng(2)
    own, base = noisy_timings(random, median=150_000), noisy_timings(random)
    assert ratio(own, base, 1.0, 95).outcome is Outcome.FAIL
    verdict = ratio(busy(own, 1.0), busy(base, 1.0), 1.0, 95)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.count("NOT QUIET: other processes kept 1.0 of 2 cores busy; latencies may be too long") == 1


def test_row46_intervals_hold_though_slices_fall_more_often_on_the_slower_file() -> None:
    """A file of 1.6 times the work is hit 1.6 times as often, which lifts its P95 alone by a whole slice."""
    truth, held, raw = 1.6, 0, 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        own, base = (sliced(noisy_timings(random, median=450_000 * much)) for much in (truth, 1.0))
        seen = ratio(own, base, 1.8, 95)
        held += seen.outcome is Outcome.PASS
        plain = (replace(one, interrupted=()) for one in (own, base))
        raw += ratio(*plain, 1.8, 95).outcome is Outcome.PASS
    assert held == 40
    assert raw < 20, "else these slices disturb nothing, and the test shows nothing"


@pytest.fixture
def loud() -> Iterator[None]:
    """As many processes that do nothing but compute as there are cores."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in os.sched_getaffinity(0)]
    # The measured process counts what it started itself as its own work: hand these over to init.
    yield
    for process in spinning:
        process.kill()
        process.wait()


@pytest.fixture
def others_at_work(monkeypatch: pytest.MonkeyPatch, loud: None, timed_once: Callable[..., bool]) -> None:
    """The planted processes count as others, though this process started them, and disturb what is timed."""
    from targets.host import machine
    from toolchain.profiling import latency

    monkeypatch.setattr(latency, "_disturbed", timed_once)
    monkeypatch.setattr(machine, "_own_ticks", lambda _root: int(sum(os.times()[:2]) * os.sysconf("SC_CLK_TCK")))


@pytest.mark.skipif(sys.platform != "linux", reason="interruptions are counted on Linux only: NOT checked")
def test_row46_what_others_take_in_the_middle_of_a_sample_is_known(loud: None) -> None:
    cores = os.sched_getaffinity(0)
    spinner = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        os.sched_setaffinity(spinner.pid, {min(cores)})
        os.sched_setaffinity(0, {min(cores)})
        plan = TimingPlan(warmup=1, min_runs=20, min_seconds=0, inner=1)
        samples, inner, interrupted = time_calls(lambda: sum(range(1_000_000)), plan)
    finally:
        os.sched_setaffinity(0, cores)
        spinner.kill()
        spinner.wait()
    assert inner == 1
    worked = samples.copy()
    for index, away in interrupted:
        worked[index] -= away
    assert len(interrupted) >= 5
    assert worked.min() > 0
    # Two processes and more want this core, so this one had at most half of the time.
    assert worked.sum() < 0.75 * samples.sum()


def test_row45_the_gate_says_inconclusive_and_marks_what_passes(
    glyphpress: Run,
    tmp_path: Path,
    others_at_work: None,
) -> None:
    base, own = linear_reader(tmp_path / "float.onnx"), linear_reader(tmp_path / "int8.onnx", step=0.01)
    words = ("gate", "--baseline", base, "--candidate", own, "--data", "builtin:digits", "--policy", "smoke")
    slow = glyphpress(*words, "--max-p50", "1ns")
    assert slow.code == 5, slow.out
    assert "timing again, since other processes were busy" in slow.err
    assert "NOT QUIET: other processes kept" in slow.out
    fast = glyphpress(*words, "--max-p50", "10s")
    assert fast.code == 0, fast.out
    assert "NOT QUIET: other processes kept" in fast.out


def test_row9_sweeps_and_operators_carry_the_mark_too(
    glyphpress: Run,
    tmp_path: Path,
    others_at_work: None,
) -> None:
    file = linear_reader(tmp_path / "float.onnx")
    swept = ("profile", file, "--sweep-batch", "1,2", "--seconds", "300ms", "--runs", "100")
    assert "NOT QUIET: other processes kept" in glyphpress(*swept).out
    found = json.loads(glyphpress("profile", file, "--per-op", "--json").out)
    assert any("other processes kept" in word for word in found["breakdowns"][0]["taints"])


def test_row9_a_probe_carries_the_mark_too(glyphpress: Run, others_at_work: None) -> None:
    done = glyphpress("probe-int8", "--target", "ort-cpu", "64x64")
    assert done.code == 0, done.err
    assert done.out.count("NOT QUIET: other processes kept") == 1


def test_row9_the_mark_says_each_thing_once_however_many_files_were_timed() -> None:
    one = noisy_timings(np.random.default_rng(4))
    hot = {"end": WATCHED | {"work_s": 124.0, "own_s": 20.0, "clock_s": 60.0, "temperature_c": 85.0}}
    files = [busy(one, 1.2), replace(one, machine=WATCHED | hot), busy(one, 0.9)]
    assert taints_of(files) == ("other processes kept 1.4 of 2 cores busy", "85 C")


def test_time_that_others_took_marks_a_run_where_the_system_counts_no_processes() -> None:
    calm = replace(noisy_timings(np.random.default_rng(5)), machine={})
    assert calm.taints == ()
    # Every 12 ms of work a slice of 4 ms.
    assert sliced(calm).taints == ("the system gave the core to others for 25 % of the time",)
    assert sliced(calm, 400 * SLICE_NS).taints == ()


BUSY_MARK = "NOT QUIET: the system gave the core to others for "


@pytest.fixture
def robbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others take the core for most of each sample, and the machine counts no processes."""
    from targets.host import runtime_session

    switches, cpu = iter(range(10**9)), iter(range(0, 10**9))
    monkeypatch.setattr(runtime_session, "machine_state", dict)
    # Each sample took one nanosecond of processor time, whatever the clock says.
    monkeypatch.setattr(runtime_session, "_thread", lambda: (next(switches), next(cpu)))


@pytest.mark.parametrize("command", ["profile", "probe-int8", "press", "gate"])
def test_every_command_that_times_says_so_in_the_same_words(
    glyphpress: Run, tmp_path: Path, robbed: None, command: str
) -> None:
    base, own = linear_reader(tmp_path / "float.onnx"), linear_reader(tmp_path / "int8.onnx", step=0.01)
    data, read = ("--data", "builtin:digits"), ("--orientation", "upright", "--scale", "0-255")
    words: dict[str, tuple[object, ...]] = {
        "profile": (base, "--seconds", "1ms", "--runs", "40"),
        "probe-int8": ("--target", "ort-cpu", "64x64"),
        "press": (base, *data, *read, "--recipe", "dynamic-int8", "--format", "onnx", "--out", tmp_path / "out"),
        "gate": ("--baseline", base, "--candidate", own, *data, "--policy", "smoke", "--max-p50", "1ns"),
    }
    done = glyphpress(command, *words[command])
    assert BUSY_MARK in done.out, done.err
    (mark,) = {line[line.index("NOT QUIET") :] for line in done.out.splitlines() if BUSY_MARK in line}
    assert "of the time; latencies may be too long" in mark
