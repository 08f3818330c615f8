"""The state of the machine that a timing was taken on; what cannot be read is absent, never invented."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from targets.errors import RunFailed

# What integer and float kernels choose by, as the kernel names them on x86 and on Arm.
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
"""Arm's MIDR_EL1 part numbers: the kernel of an Arm tells no name of its processor."""
_OWN_POWERSAVE = {"intel_pstate", "amd-pstate-epp"}
"""Drivers whose powersave follows the load, and is what most machines use; elsewhere it keeps the lowest frequency."""
_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what could change a latency here, as JSON types; `root` is where /proc and /sys are looked for.

    cpu, board, architecture, cores, usable_cores, pinned (to which, where they are not all), isa, governor, mhz,
    load_average (1, 5, 15 minutes), memory_bytes, available_bytes, temperature_c, throttled (the Raspberry Pi
    firmware's bits), os, kernel, python, and what `targets.host.machine.cpu_seconds` tells.
    """
    cpu, memory = _read(root / "proc/cpuinfo"), _read(root / "proc/meminfo")
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    state = {
        "cpu": _field(cpu, "model name") or _PARTS.get(_field(cpu, "CPU part") or ""),
        "board": _read(root / "proc/device-tree/model").rstrip("\0\n") or _field(cpu, "Model"),
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


def _pinned() -> list[int]:
    usable = sorted(os.sched_getaffinity(0))
    return usable if len(usable) < (os.cpu_count() or 0) else []


def taints(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words what made a measurement between two states (`machine_state`) less than quiet; nothing if quiet.

    Other processes at work (`busy_by_others`, else a load of one minute above the cores), a governor that saves power,
    a frequency that fell by a tenth, a temperature at which boards slow down, and what a Raspberry Pi's firmware says
    (`vcgencmd get_throttled`: bits 0 to 3 now, 16 to 19 since it was started).
    """
    found = [*_busy(before, after)]
    if "powersave" in (before.get("governor"), after.get("governor")):
        found.append("governor powersave")
    if before.get("mhz") and after.get("mhz", before["mhz"]) < 0.9 * before["mhz"]:
        found.append(f"frequency fell from {before['mhz']:.0f} to {after['mhz']:.0f} MHz")
    if max(before.get("temperature_c", 0), after.get("temperature_c", 0)) >= HOT_C:
        found.append(f"{max(before.get('temperature_c', 0), after.get('temperature_c', 0)):.0f} C")
    return (*found, *_throttling(after.get("throttled", "")))


def _busy(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield what others were seen to do."""
    used, cores = busy_by_others(before, after), after.get("cores", 1)
    if used is not None:
        if used > quiet_cores(cores):
            yield f"others kept {used:.1f} of {cores} core{'s' * (cores != 1)} busy"
        return
    loads = [state["load_average"][0] for state in (before, after) if "load_average" in state]
    usable = after.get("usable_cores", 1)
    if loads and max(loads) > usable:
        yield f"load {max(loads):.1f} on {usable} core{'s' * (usable != 1)}"


def _throttling(bits: str) -> Iterator[str]:
    """Yield what the firmware's hexadecimal bits say."""
    try:
        flags = int(bits or "0", 16)
    except ValueError:
        return
    for bit, word in enumerate(_FIRMWARE):
        if flags >> bit & 1:
            yield f"{word} now"
        elif flags >> (16 + bit) & 1:
            yield f"{word} since it was started"


def _governor(frequency: Path) -> str:
    """Return the governor; where its name does not mean what it does elsewhere, with the driver that it belongs to."""
    name, driver = (_read(frequency / f"scaling_{word}").strip() for word in ("governor", "driver"))
    return f"{name} of {driver}" if name == "powersave" and driver in _OWN_POWERSAVE else name


def saturates(isa: Collection[str]) -> bool:
    """Return whether ONNX Runtime's 8-bit kernels may saturate on a processor with these flags, or with none known.

    x86 without VNNI multiplies by `pmaddubsw`, which adds two products of uint8 and int8 in 16 bits. Arm's kernels,
    and those of VNNI and AMX, add in 32.
    """
    return not {"neon", "asimd", "avx_vnni", "avx512_vnni", "amx_int8"} & set(isa)


def multiplies_bytes(isa: Collection[str]) -> bool:
    """Return whether a processor with these flags multiplies bytes and adds the products in one instruction.

    VNNI and AMX of x86, the dot product and i8mm of Arm. Without them int8 takes several instructions where float
    takes one fused multiply-add, and may be the slower of the two.
    """
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"} & set(isa))


def cpu_name(root: Path = Path("/")) -> str:
    """Return the name of the board or processor, or its architecture where neither is told."""
    state = machine_state(root)
    return str(state.get("board") or state.get("cpu") or platform.machine())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str | None:
    match = re.search(rf"^{re.escape(name)}\s*[:=]\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _isa(cpuinfo: str) -> list[str]:
    """Return the flags that matter; the kernel calls the line `flags` on x86 and `Features` on Arm."""
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())
    return [flag for flag in ISA_FLAGS if flag in flags]


def _scaled(text: str, divisor: int) -> float | None:
    return float(text) / divisor if text.strip().lstrip("-").isdigit() else None


def _mhz(cpuinfo: str, current_khz: str) -> float | None:
    stated = _field(cpuinfo, "cpu MHz")
    return _scaled(current_khz, 1000) or (float(stated) if stated else None)


def _kilobytes(meminfo: str, name: str) -> int | None:
    stated = _field(meminfo, name)
    return int(stated.split()[0]) * 1024 if stated else None


def _os_name(release: str) -> str:
    return (_field(release, "PRETTY_NAME") or platform.system()).strip('"')


QUIET = 0.25
"""Cores that other processes may keep busy on a quiet machine; a tenth of the machine where that is more."""
COUNTERS = ("work_s", "own_s", "clock_s")
"""What `cpu_seconds` returns: seconds whose differences say something, and which alone say nothing."""


def cpu_seconds(root: Path = Path("/")) -> dict[str, float]:
    """Return `work_s`, processor seconds of all since the machine started, `own_s` of those ours, and `clock_s`.

    What a hypervisor gave to other machines counts as worked by others. Empty where /proc does not tell.
    """
    lines = _text(root / "proc/stat").splitlines()
    if not lines or not lines[0].startswith("cpu "):
        return {}
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = map(int, lines[0].split()[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    everybody = (user + nice + system + irq + softirq + steal) / ticks
    return {"work_s": everybody, "own_s": _own(root) / ticks, "clock_s": monotonic()}


def quiet_cores(cores: int) -> float:
    """Return how many of the cores others may keep busy on a quiet machine."""
    return max(QUIET, cores / 10)


def busy_by_others(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return how many cores others kept busy between two answers of `cpu_seconds`; None where they do not tell."""
    if not {*COUNTERS} <= before.keys() & after.keys():
        return None
    worked, own, passed = (after[name] - before[name] for name in COUNTERS)
    return max(0.0, (worked - own) / passed) if passed > 0 else None


def _own(root: Path) -> int:
    """Return the ticks of this process and its descendants, those that ended and were waited for included."""
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
    for folder in (root / "proc").glob("[0-9]*"):
        with suppress(IndexError, ValueError):  # it has just ended
            # The name, in parentheses, may hold anything.
            fields = _text(folder / "stat").rpartition(")")[2].split()
            yield int(folder.name), int(fields[1]), sum(map(int, fields[11:15]))


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def pin(cores: Collection[int]) -> None:
    """Keep this thread, and all threads and processes that it starts from now on, on some cores, numbered from 0.

    Raises RunFailed where a core is not there, or not for this process, or the system pins nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RunFailed("this system pins no process to cores; measure on Linux, or without --pin")
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        named, there = (", ".join(map(str, sorted(some))) for some in (cores, usable))
        raise RunFailed(f"cannot run on core {named} ({error}); this process may take {there}") from error
    missing = set(cores) - os.sched_getaffinity(0)
    if missing:  # Linux takes those that exist and says nothing
        os.sched_setaffinity(0, usable)
        named, there = (", ".join(map(str, sorted(some))) for some in (missing, usable))
        raise RunFailed(f"there is no core {named}; this process may take {there}")


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Pin while a block runs; without cores leave everything as it is."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
