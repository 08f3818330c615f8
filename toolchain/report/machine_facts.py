"""The state of a machine as what a reader needs: its processor, how it was set, and how busy it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def machine_facts(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and texts of what `targets.host.machine.machine_state` gave; what it lacks is left out.

    So are keys that this does not know, such as the counters in reports of older versions. A value of an unexpected
    type, as in a report that was changed by hand, is shown as it is.
    """
    facts = [(name, _text(state, key, form)) for name, key, _, form in _FORMS if key in state]
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


def _busy(cores: Any, state: Mapping[str, Any]) -> str:
    of = f" of {state['cores']}" if "cores" in state else ""
    return f"{cores:.1f}{of} core{'s' * (state.get('cores') != 1)} while files were timed"


def _plain(value: Any, _: Mapping[str, Any]) -> str:
    return str(value)


def machine_schema() -> dict[str, Any]:
    """Return the JSON schema of a stored state: what a reader is shown; other keys are allowed."""
    properties: dict[str, Any] = {key: {"type": kind, "description": name} for name, key, kind, _ in _FORMS}
    properties |= {key: {"type": "array", "items": {"type": item}, "description": name} for name, key, item in _LISTS}
    return {"type": "object", "properties": properties, "additionalProperties": True}


_LISTS = (
    ("Numbers of the cores it was pinned to", "pinned", "integer"),
    ("Instruction sets", "isa", "string"),
    ("Load averages of 1, 5 and 15 minutes", "load_average", "number"),
)
_FORMS: tuple[tuple[str, str, str, Callable[[Any, Mapping[str, Any]], str]], ...] = (
    ("Board", "board", "string", _plain),
    ("Processor", "cpu", "string", _plain),
    ("Architecture", "architecture", "string", _plain),
    ("Cores", "cores", "integer", _cores),
    ("Pinned to cores", "pinned", "array", _joined),
    ("Instruction sets", "isa", "array", _joined),
    ("CPU governor", "governor", "string", _plain),
    ("Clock", "mhz", "number", lambda mhz, _: f"{mhz:.0f} MHz"),
    ("Load by other processes", "busy_cores", "number", _busy),
    ("Load at the end", "load_average", "array", _load),
    ("Temperature", "temperature_c", "number", lambda degrees, _: f"{degrees:.0f} °C"),
    ("Throttled", "throttled", "string", _plain),
    ("Memory", "memory_bytes", "integer", lambda size, _: f"{size / 1e9:.1f} GB"),
    ("System", "os", "string", _plain),
    ("Kernel", "kernel", "string", _plain),
    ("Python", "python", "string", _plain),
)
"""What a reader is shown of a state, in order: name, key, type in JSON, and the text of a value."""
