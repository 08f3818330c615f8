"""The state of a machine as what a reader needs: its processor, how it was set, and how busy it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def machine_facts(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and texts of what `targets.host.machine.machine_state` gave; what it lacks is left out.

    Its counters are left out too, since they mean something only as differences. A value of an unexpected type, as in a
    report that was changed by hand, is shown as it is.
    """
    facts = [(name, _text(state, key, form)) for name, key, form in _FORMS if key in state]
    if "cpu" in state and "governor" not in state:
        facts.append(("CPU governor", "not reported by this machine"))
    return facts


def _text(state: Mapping[str, Any], key: str, form: Callable[[Any, Mapping[str, Any]], str]) -> str:
    try:
        return form(state[key], state)
    except (TypeError, ValueError, IndexError, AttributeError):
        return str(state[key])


def _cores(cores: Any, state: Mapping[str, Any]) -> str:
    usable = state.get("usable_cores", cores)
    return f"{cores:d}" if usable == cores else f"{cores:d}, of which {usable:d} could be used"


def _joined(values: Any, _: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)


def _load(loads: Any, state: Mapping[str, Any]) -> str:
    cores = state.get("cores")
    of = f", on {cores} core{'s' * (cores != 1)}" if cores else ""
    return f"{loads[0]:.2f} (average of a minute{of})"


def _plain(value: Any, _: Mapping[str, Any]) -> str:
    return str(value)


_FORMS: tuple[tuple[str, str, Callable[[Any, Mapping[str, Any]], str]], ...] = (
    ("Board", "board", _plain),
    ("Processor", "cpu", _plain),
    ("Architecture", "architecture", _plain),
    ("Cores", "cores", _cores),
    ("Pinned to cores", "pinned", _joined),
    ("Instruction sets", "isa", _joined),
    ("CPU governor", "governor", _plain),
    ("Clock", "mhz", lambda mhz, _: f"{mhz:.0f} MHz"),
    ("Load at the end", "load_average", _load),
    ("Temperature", "temperature_c", lambda degrees, _: f"{degrees:.0f} °C"),
    ("Throttled", "throttled", _plain),
    ("Memory", "memory_bytes", lambda size, _: f"{size / 1e9:.1f} GB"),
    ("System", "os", _plain),
    ("Kernel", "kernel", _plain),
    ("Python", "python", _plain),
)
