"""Weights into a module: where they lie in a file, the prefixes they carry, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolchain.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE_KEYS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")
_SHOWN = 5


def find_state(payload: Any, name: str) -> dict[str, Tensor]:
    """Return the weights in what a file held: the payload itself, or what stands under one of `STATE_KEYS`.

    Raises CheckpointError naming the keys that are there when none holds weights.
    """
    if _is_state(payload):
        return dict(payload)
    if isinstance(payload, Mapping):
        for key in STATE_KEYS:
            if _is_state(payload.get(key)):
                return dict(payload[key])
        there = listing(map(str, payload)) if payload else "nothing"
        raise CheckpointError(
            f"{name} holds {there}, but no weights under {', '.join(STATE_KEYS)}; save model.state_dict()"
        )
    raise CheckpointError(f"{name} holds a {type(payload).__name__}, not weights; save model.state_dict()")


def _is_state(value: Any) -> bool:
    from torch import Tensor

    # A state_dict may hold non-tensor extras (get_extra_state), but never plain numbers such as an epoch.
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def fit_state(module: nn.Module, state: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
    """Load the weights into `module`, without the prefixes that wrappers left; return a note when one was taken off.

    Raises CheckpointError listing the missing, the unexpected and the misshapen, and saying the fix.
    """
    expected = module.state_dict()
    fitting, prefix = without_prefixes(state, expected)
    problems = _problems(expected, fitting)
    if problems:
        raise CheckpointError(f"{name} is not a checkpoint of {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(fitting), strict=False)
    return (f"prefix '{prefix}' taken off the names of the weights",) if prefix else ()


def without_prefixes(state: Mapping[str, Tensor], expected: Iterable[str]) -> tuple[dict[str, Tensor], str]:
    """Return the weights under the names that come closest to the expected, and the prefix that was taken off.

    A prefix goes only when every name carries it; torch.compile's `_orig_mod.` goes wherever it stands.
    """
    wanted = set(expected)
    names = {key: key for key in state}
    best, best_prefix, prefix = names, "", ""
    while True:
        if len(wanted & set(names.values())) > len(wanted & set(best.values())):
            best, best_prefix = names, prefix
        plain = {key: name.replace("_orig_mod.", "") for key, name in names.items()}
        if plain != names:
            names, prefix = plain, prefix + "_orig_mod."
            continue
        step = next((p for p in PREFIXES if all(name.startswith(p) for name in names.values())), None)
        if step is None:
            return {best[key]: value for key, value in state.items()}, best_prefix
        names, prefix = {key: name[len(step) :] for key, name in names.items()}, prefix + step


def _problems(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    # Checkpoints older than torch 0.4.1 lack these counters, which evaluation never reads.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {list(state[key].shape)}, the model wants {list(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    found = []
    if missing:
        found.append(f"missing {listing(missing)}")
    if unexpected:
        found.append(f"unexpected {listing(unexpected)}")
    if shapes:
        found.append(f"wrong shapes: {listing(shapes)}")
    if found:
        fix = "give the class and arguments that it was trained with (--model)"
        if shapes and not (missing or unexpected):
            fix = 'build the model with the sizes it was trained with, such as --model "net.py:Net(num_classes=47)"'
        found.append(fix)
    return found


def listing(items: Iterable[str]) -> str:
    """Return the first few items and how many more there are."""
    everything = list(items)
    more = len(everything) - _SHOWN
    return ", ".join(everything[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
