"""This machine while something is timed: its state, the CPU load of other processes, and pinning to cores."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from targets.errors import RunFailed

# The flags by which runtimes choose their kernels, as Linux names them on x86 and on Arm.
ISA_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("atomics", "neon", "asimd", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2"),
)
HOT_C = 80.0
"""A Raspberry Pi's soft temperature limit, where its firmware begins to slow it down."""
_FIRMWARE = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd41": "Cortex-A78",
    "0xd49": "Neoverse N2",
}
"""Arm's MIDR_EL1 part numbers: on Arm, Linux does not give the processor's name."""
_OWN_POWERSAVE = {"intel_pstate", "amd-pstate-epp"}
"""Drivers whose powersave governor follows the load; with others it keeps the lowest frequency."""
_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
QUIET = 0.25
"""Cores that other processes may keep busy on a quiet machine; a tenth of the machine's cores where that is more."""
State = Mapping[str, Any]
"""What `machine_state` returns; readers must expect that any key is missing."""
COUNTERS = ("work_s", "own_s", "clock_s")
"""The keys of `cpu_seconds`, whose values mean something only as differences."""


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what can change a latency on this machine, as JSON types; what cannot be read is left out.

    cpu, board, architecture, cores, usable_cores, pinned (the usable cores, where they are not all), isa, governor,
    mhz, load_average (1, 5, 15 minutes), memory_bytes, available_bytes, temperature_c, throttled (the Raspberry Pi
    firmware's bits), os, kernel, python, and the keys of `cpu_seconds`. root: the folder that has /proc and /sys.
    """
    cpu, memory = _read(root / "proc/cpuinfo"), _read(root / "proc/meminfo")
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    state = {
        "cpu": _processor(cpu),
        "board": _board(root, cpu),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "pinned": _pinned(),
        "isa": _isa(cpu),
        "governor": _governor(frequency),
        "mhz": _mhz(cpu, _read(frequency / "scaling_cur_freq")),
        "load_average": [float(word) for word in _read(root / "proc/loadavg").split()[:3]],
        "memory_bytes": _kilobytes(memory, "MemTotal"),
        "available_bytes": _kilobytes(memory, "MemAvailable"),
        "temperature_c": _scaled(_read(root / "sys/class/thermal/thermal_zone0/temp"), 1000),
        "throttled": _read(root / _THROTTLED.lstrip("/")).strip(),
        "os": _os_name(_read(root / "etc/os-release")),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    return {key: value for key, value in (state | cpu_seconds(root)).items() if value not in (None, "", [])}


def described(state: State) -> dict[str, Any]:
    """Return a state without its counters, for people and for files that outlive the process."""
    return {key: value for key, value in state.items() if key not in COUNTERS}


def _pinned() -> list[int]:
    usable = sorted(os.sched_getaffinity(0))
    return usable if len(usable) < (os.cpu_count() or 0) else []


def taints(before: State, after: State) -> tuple[str, ...]:
    """Return what disturbed a measurement between two states (`machine_state`), as texts; none if nothing did.

    These are: other processes (`busy_by_others`, else a load average of one minute above the number of cores), a
    governor that saves power, a frequency that fell by a tenth, a temperature at which boards slow down, and what a
    Raspberry Pi's firmware reports (`vcgencmd get_throttled`: bits 0 to 3 now, 16 to 19 since it was started).
    """
    disturbances = [*_busy(before, after)]
    if "powersave" in (before.get("governor"), after.get("governor")):
        disturbances.append("governor powersave")
    if before.get("mhz") and after.get("mhz", before["mhz"]) < 0.9 * before["mhz"]:
        disturbances.append(f"frequency fell from {before['mhz']:.0f} to {after['mhz']:.0f} MHz")
    if max(before.get("temperature_c", 0), after.get("temperature_c", 0)) >= HOT_C:
        disturbances.append(f"{max(before.get('temperature_c', 0), after.get('temperature_c', 0)):.0f} C")
    return (*disturbances, *_throttling(after.get("throttled", "")))


def _busy(before: State, after: State) -> Iterator[str]:
    """Yield the load by other processes, where it is more than on a quiet machine."""
    used, cores = busy_by_others(before, after), after.get("cores", 1)
    if used is not None:
        if used > quiet_cores(cores):
            yield f"other processes kept {used:.1f} of {cores} core{'s' * (cores != 1)} busy"
        return
    loads = [state["load_average"][0] for state in (before, after) if "load_average" in state]
    usable = after.get("usable_cores", 1)
    if loads and max(loads) > usable:
        yield f"load {max(loads):.1f} on {usable} core{'s' * (usable != 1)}"


def _throttling(bits: str) -> Iterator[str]:
    """Yield what the firmware's hexadecimal bits mean."""
    try:
        flags = int(bits or "0", 16)
    except ValueError:
        return
    for bit, event in enumerate(_FIRMWARE):
        if flags >> bit & 1:
            yield f"{event} now"
        elif flags >> (16 + bit) & 1:
            yield f"{event} since it was started"


def _governor(frequency: Path) -> str:
    """Return the governor's name, with the driver where that gives the name another meaning."""
    name, driver = (_read(frequency / f"scaling_{word}").strip() for word in ("governor", "driver"))
    return f"{name} of {driver}" if name == "powersave" and driver in _OWN_POWERSAVE else name


def saturates(isa: Collection[str]) -> bool:
    """Return whether ONNX Runtime's 8-bit kernels can saturate on a processor with these flags, or with unknown ones.

    x86 without VNNI multiplies by `pmaddubsw`, which adds two products of uint8 and int8 in 16 bits. Kernels for Arm,
    VNNI and AMX add in 32 bits.
    """
    return not {"neon", "asimd", "avx_vnni", "avx512_vnni", "amx_int8"} & set(isa)


def multiplies_bytes(isa: Collection[str]) -> bool:
    """Return whether a processor with these flags multiplies bytes and adds the products in one instruction.

    VNNI and AMX of x86, the dot product and i8mm of Arm. Without them int8 takes several instructions where float
    takes one fused multiply-add, and may be the slower of the two.
    """
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"} & set(isa))


def cpu_name(root: Path = Path("/")) -> str:
    """Return the name of the board or processor, or its architecture where neither is known."""
    cpu = _read(root / "proc/cpuinfo")
    return _board(root, cpu) or _processor(cpu) or platform.machine()


def _processor(cpuinfo: str) -> str | None:
    return _field(cpuinfo, "model name") or _PARTS.get(_field(cpuinfo, "CPU part") or "")


def _board(root: Path, cpuinfo: str) -> str | None:
    return _read(root / "proc/device-tree/model").rstrip("\0\n") or _field(cpuinfo, "Model")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str | None:
    match = re.search(rf"^{re.escape(name)}\s*[:=]\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _isa(cpuinfo: str) -> list[str]:
    """Return those of `ISA_FLAGS` that are set; the line is called `flags` on x86 and `Features` on Arm."""
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())
    return [flag for flag in ISA_FLAGS if flag in flags]


def _scaled(text: str, divisor: int) -> float | None:
    return float(text) / divisor if text.strip().lstrip("-").isdigit() else None


def _mhz(cpuinfo: str, current_khz: str) -> float | None:
    mhz = _field(cpuinfo, "cpu MHz")
    return _scaled(current_khz, 1000) or (float(mhz) if mhz else None)


def _kilobytes(meminfo: str, name: str) -> int | None:
    line = _field(meminfo, name)
    return int(line.split()[0]) * 1024 if line else None


def _os_name(release: str) -> str:
    return (_field(release, "PRETTY_NAME") or platform.system()).strip('"')


def cpu_seconds(root: Path = Path("/")) -> dict[str, float]:
    """Return CPU seconds since the machine started (`work_s`), those of this process (`own_s`), and `clock_s`.

    Time that a hypervisor gave to other machines counts as work of other processes. Empty where /proc has no counts.
    """
    lines = _read(root / "proc/stat").splitlines()
    if not lines or not lines[0].startswith("cpu "):
        return {}
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(int, lines[0].split()[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    all_processes = (user + nice + system + irq + softirq + steal) / ticks
    return {"work_s": all_processes, "own_s": _own_ticks(root) / ticks, "clock_s": monotonic()}


def quiet_cores(cores: int) -> float:
    """Return how many of the cores other processes may keep busy on a quiet machine."""
    return max(QUIET, cores / 10)


def busy_by_others(before: State, after: State) -> float | None:
    """Return how many cores other processes kept busy between two results of `cpu_seconds`; None if one is empty."""
    if not {*COUNTERS} <= before.keys() & after.keys():
        return None
    all_seconds, own_seconds, elapsed = (after[name] - before[name] for name in COUNTERS)
    return max(0.0, (all_seconds - own_seconds) / elapsed) if elapsed > 0 else None


def _own_ticks(root: Path) -> int:
    """Return the ticks of this process and its descendants, with those that ended and were waited for."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for process, parent, used in _processes(root):
        parents[process], ticks[process] = parent, used
    return sum(used for process, used in ticks.items() if os.getpid() in _ancestry(process, parents))


def _ancestry(process: int, parents: Mapping[int, int]) -> Iterator[int]:
    """Yield a process, its parent, and so on."""
    while process in parents:
        yield process
        process = parents[process]


def _processes(root: Path) -> Iterator[tuple[int, int, int]]:
    """Yield number, parent and ticks of every process."""
    for entry in os.scandir(root / "proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):  # it has just ended
            # No Path and no file object: this is done around each timing, for every process on the machine.
            stat = os.open(f"{entry.path}/stat", os.O_RDONLY)
            try:
                # The name, in parentheses, may contain anything.
                fields = os.read(stat, 4096).rpartition(b")")[2].split()
            finally:
                os.close(stat)
            yield int(entry.name), int(fields[1]), sum(map(int, fields[11:15]))


def pin(cores: Collection[int]) -> None:
    """Keep this thread, and all threads and processes that it starts from now on, on these cores.

    Cores are numbered from 0. Raises RunFailed where a core does not exist, this process may not use it, or the system
    cannot pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RunFailed("this system cannot pin a process to cores; measure on Linux, or without --pin")
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        raise RunFailed(f"cannot run on core {_listed(cores)}; this process may use {_listed(usable)}") from error
    missing = set(cores) - os.sched_getaffinity(0)
    if missing:  # Linux ignores cores that do not exist
        os.sched_setaffinity(0, usable)
        raise RunFailed(f"there is no core {_listed(missing)}; this process may use {_listed(usable)}")


def _listed(cores: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Pin inside the block; without cores do nothing."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
