"""The state of the machine that a timing was taken on; what cannot be read is absent, never invented."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

# What integer and float kernels choose by, as the kernel names them on x86 and on Arm.
ISA_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("atomics", "neon", "asimd", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2"),
)
_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what could change a latency here, as JSON types; `root` is where /proc and /sys are looked for.

    cpu, board, architecture, cores, usable_cores, isa, governor, mhz, load_average (1, 5, 15 minutes), memory_bytes,
    available_bytes, temperature_c, throttled (the Raspberry Pi firmware's bits), os, kernel, python.
    """
    cpu, memory = _read(root / "proc/cpuinfo"), _read(root / "proc/meminfo")
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    state = {
        "cpu": _field(cpu, "model name") or _field(cpu, "Model"),
        "board": _read(root / "proc/device-tree/model").rstrip("\0\n"),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "isa": _isa(cpu),
        "governor": _read(frequency / "scaling_governor").strip(),
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
    return {key: value for key, value in state.items() if value not in (None, "", [])}


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
