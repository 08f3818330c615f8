"""Load weights into a module: find them in the file, strip the prefixes of wrappers, and report what does not fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from toolchain import models
from toolchain.checkpoint.computed_weights import bake_state, computed_names, prefixes
from toolchain.checkpoint.source import model_option, size_argument
from toolchain.core.errors import CheckpointError, UsageProblem

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where the weights of a training checkpoint usually are; these are preferred."""
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing insert anywhere in a weight's name."""
_WRAPPER = re.compile("|".join(map(re.escape, _WRAPPERS)))
_AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow|teacher|optim(izer)?)([._]|$)", re.IGNORECASE)
_TRAINING_ONLY = re.compile(r"(^|_)(loss|criterion|metrics?|acc|accuracy|f1|auroc|confmat|confusion)", re.IGNORECASE)
_MAX_DEPTH = 5
_PACKED = "_packed_params"
_LISTED = 5
UNINITIALISED = (
    "was saved before the model had run once, so its lazy layers have no weights yet; run it on a batch, then save it"
)


@dataclass(frozen=True)
class Fitted:
    """The weights that were loaded, by the module's names, and notes on what was chosen or left out."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def tensors_in(payload: object, name: str) -> dict[str, Tensor]:
    """Return every tensor in a file's content by its dotted name (`state_dict.conv.weight`), without wrappers' names.

    Raises CheckpointError, listing the keys, when there is no tensor, and when a lazy layer was saved before it ran.
    """
    from torch.nn.parameter import is_lazy

    parts = dict(enumerate(payload)) if isinstance(payload, (list, tuple)) else payload
    if not isinstance(parts, Mapping):
        raise CheckpointError(f"{name} holds a {type(payload).__name__}, not weights; save model.state_dict()")
    tensors = dict(_flat(parts))
    if not tensors:
        keys = listing(map(str, parts)) if parts else "nothing"
        raise CheckpointError(f"{name} holds {keys}, but no weights; save model.state_dict()")
    if any(is_lazy(value) for value in tensors.values()):
        raise CheckpointError(f"{name} {UNINITIALISED}")
    return tensors


def _flat(parts: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    from torch import Tensor

    for key, value in parts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield _WRAPPER.sub("", name), value
        elif str(key).endswith(_PACKED) and isinstance(value, tuple):
            # A quantized layer's weights and biases.
            yield from _flat(dict(enumerate(value)), f"{name}.", _MAX_DEPTH)
        # An optimizer's state has numbers as keys, and a dict in a damaged file may contain itself.
        elif isinstance(value, Mapping) and depth < _MAX_DEPTH and all(isinstance(inner, str) for inner in value):
            yield from _flat(value, f"{name}.", depth + 1)


def class_name(module: nn.Module) -> str:
    """Return the name of the user's class, looking inside torch's own wrappers."""
    match list(module.named_children()):
        case [(name, wrapped)] if f"{name}." in (*_WRAPPERS, "module."):
            return class_name(wrapped)
    return type(module).__name__


def modules_in(payload: object) -> dict[str, nn.Module]:
    """Return the whole models in the content of a trusted pickle by their keys."""
    from torch import nn

    items = payload.items() if isinstance(payload, Mapping) else ()
    return {str(key): value for key, value in items if isinstance(value, nn.Module)}


def find_state(payload: object, name: str, key: str | None) -> Fitted:
    """Return the weights in a file's content for an unknown class: those under `key`, else under the likeliest key.

    Raises as `tensors_in`, and UsageProblem when there is nothing under `key`.
    """
    tensors = tensors_in(payload, name)
    parts = payload if isinstance(payload, Mapping) else {}
    keys = {str(part) for part, value in parts.items() if isinstance(value, Mapping)} | ({key} if key else set())
    by_prefix = _grouped(tensors, {f"{part}." for part in keys})
    groups = {prefix[:-1]: weights for prefix, weights in by_prefix.items() if weights}
    if key is None and (not groups or any(str(part) in tensors for part in parts)):
        return Fitted(tensors, ())
    chosen, notes = preferred(groups, key, name)
    return Fitted(groups[chosen], notes)


def no_such_weights(name: str, key: str, keys: Sequence[str]) -> UsageProblem:
    """Return the error for a `--weights` key that the file does not have."""
    fix = f"it has them under {listing(keys)}" if keys else "its weights are not under a key, so leave --weights out"
    return UsageProblem(f"{name} has no weights under '{key}'; {fix}")


def preferred(keys: Iterable[str], key: str | None, name: str) -> tuple[str, tuple[str, ...]]:
    """Return `key`, or without it the likeliest of `keys`, and a note that names the others."""
    keys = sorted(keys, key=_rank)
    if key is not None and key not in keys:
        raise no_such_weights(name, key, keys)
    chosen = key if key is not None else keys[0]
    return chosen, _choice_note(chosen, [key for key in keys if key not in ("", chosen)])


def _rank(key: str) -> tuple[bool, int, int]:
    """Return the sort key: trained weights before averaged ones, usual keys before others, then by nesting."""
    first = key.partition(".")[0]
    position = STATE_KEYS.index(first) if first in STATE_KEYS else len(STATE_KEYS)
    return bool(_AVERAGED.search(key)), position, key.count(".")


def _choice_note(key: str, others: Sequence[str]) -> tuple[str, ...]:
    if others:
        fix = f"--weights {others[0]}" + (f" (or {listing(others[1:])})" if others[1:] else "")
        return (f"weights taken from '{key or 'the top of the file'}'; {fix} takes the others",)
    return () if key in ("", *STATE_KEYS) else (f"weights taken from '{key}'",)


def fit_state(
    module: nn.Module, tensors: Mapping[str, Tensor], name: str, weights_key: str | None = None, *, assign: bool = False
) -> Fitted:
    """Load into `module` the weights under the prefix (of keys and wrappers) with which all names match.

    tensors: of the whole file, by dotted name. weights_key: the key of `--weights`; without it raw weights are
    preferred to averaged ones, and a note names the others. assign: use the given tensors, with their own dtype, as
    the module's weights (weights that it shared are then no longer shared) instead of copying their values.

    Raises CheckpointError listing missing and unexpected names and wrong shapes, and how to fix it; UsageProblem when
    there is nothing under `weights_key`.
    """
    expected = module.state_dict()
    matching = _matching_prefixes([*tensors, *computed_names(tensors)], expected)
    keys = [prefix.rstrip(".") for prefix in matching]
    groups, least_weights = _grouped(tensors, set(matching)), len(_missing(expected, ()))
    # Where many prefixes have few weights each, looking for every expected name under each would take minutes.
    large_enough = [prefix for prefix in matching if len(groups[prefix]) >= least_weights]
    complete = {
        prefix.rstrip("."): prefix
        for prefix in large_enough
        if not _problems(module, expected, bake_state(groups[prefix], expected)[0])
    }
    fitting = complete
    if weights_key is not None:
        matching = [prefix for prefix in matching if prefix.startswith(f"{weights_key}.")]
        fitting = {key: prefix for key, prefix in complete.items() if prefix.startswith(f"{weights_key}.")}
        if not matching:
            # Part of a longer key is enough where it is that of one set of weights alone.
            fitting = {key: prefix for key, prefix in complete.items() if f".{weights_key}." in f".{prefix}"}
            if len(fitting) != 1:
                raise no_such_weights(name, weights_key, keys)
    if fitting:
        key, notes = preferred(fitting, None, name)
        return _loaded(module, groups[fitting[key]], notes, assign=assign)
    if matching and (lent := _lent(module, groups, matching[0], complete, name)):
        return _loaded(module, *lent, assign=assign)
    # No prefix explains the names: a model with a wrapper inside it, or one that renames old weights itself.
    prefix = matching[0] if matching else ""
    weights = groups[prefix] if matching else dict(tensors)
    for candidate in (weights, {key.replace("module.", ""): value for key, value in weights.items()}):
        baked, _ = bake_state(candidate, expected)
        if not _problems(module, expected, baked) or _loads(module, baked):
            return _loaded(module, candidate, _choice_note(prefix.rstrip("."), ()), assign=assign)
    problems = "; ".join(_problems(module, expected, weights))
    raise CheckpointError(f"{name} is not a checkpoint of {type(module).__name__}: {problems}")


def _lent(
    module: nn.Module, groups: Mapping[str, dict[str, Tensor]], prefix: str, complete: Mapping[str, str], name: str
) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """Return weights that lack only buffers, as averaged ones often do, with those of the other weights, and a note.

    None where parameters are missing too. complete: key and prefix of the weights that lack nothing. Raises
    CheckpointError where there are none to take buffers from.
    """
    expected = module.state_dict()
    weights, _ = bake_state(groups[prefix], expected)
    lacking = _missing(expected, weights)
    if not lacking or not set(lacking) <= {buffer for buffer, _ in module.named_buffers()}:
        return None
    key = prefix.rstrip(".")
    of = f"the weights under '{key}'" if key else "the weights"
    if not complete:
        raise CheckpointError(
            f"{name}: {of} lack {listing(lacking)}, which are no parameters and were not saved with them; save the "
            "whole state_dict() of the model"
        )
    source, _ = preferred(complete, None, name)
    others, _ = bake_state(groups[complete[source]], expected)
    note = f"{of} lack {listing(lacking)}: taken from '{source or 'the top of the file'}'"
    return weights | {buffer: others[buffer] for buffer in lacking}, (*_choice_note(key, ()), note)


def _loaded(module: nn.Module, tensors: Mapping[str, Tensor], notes: tuple[str, ...], *, assign: bool) -> Fitted:
    """Load weights that fit the module, and add notes on those that were computed and those that were left out."""
    expected = module.state_dict()
    weights, computed = bake_state(tensors, expected)
    module.load_state_dict(weights, strict=False, assign=assign)
    if computed:
        notes += (f"weights computed once and kept: {listing(computed)}",)
    extra = [key for key in weights if key not in expected and not key.endswith((".weight_g", ".weight_v"))]
    if extra:
        notes += (f"not of the model, left out: {listing(extra)}",)
    return Fitted(weights, notes)


def _loads(module: nn.Module, tensors: dict[str, Tensor]) -> bool:
    try:
        mismatched = module.load_state_dict(tensors, strict=False)
    except RuntimeError:
        # Raised for shapes that differ.
        return False
    return not _missing(mismatched.missing_keys, ()) and not _unexpected(tensors, mismatched.unexpected_keys)


def _matching_prefixes(tensors: Iterable[str], expected: Mapping[str, Tensor]) -> list[str]:
    """Return every prefix under which the file has a name that the module expects, the one with most names first."""
    counts: Counter[str] = Counter()
    for name in tensors:
        counts.update(start for start in prefixes(name) if name[len(start) :] in expected)
    return sorted(counts, key=lambda prefix: (-counts[prefix], _rank(prefix.rstrip("."))))


def _grouped(tensors: Mapping[str, Tensor], starts: Collection[str]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors under each prefix, which ends with a dot or is empty, by the rest of their names."""
    groups: dict[str, dict[str, Tensor]] = {start: {} for start in starts}
    for name, tensor in tensors.items():
        for start in prefixes(name):
            if start in groups:
                groups[start][name[len(start) :]] = tensor
    return groups


def _missing(expected: Iterable[str], given: Iterable[str]) -> list[str]:
    # Checkpoints older than torch 0.4.1 lack these counters, which evaluation never reads.
    return [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]


def _unexpected(tensors: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    """Return those of `names` that can be a layer's weights, not counters or the state of metrics and losses."""
    return [key for key in names if tensors[key].is_floating_point() and not _TRAINING_ONLY.search(key.split(".")[0])]


def _problems(module: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    from torch.nn.parameter import is_lazy

    missing = _missing(expected, state)
    unexpected = _unexpected(state, [key for key in state if key not in expected])
    shapes = {
        key: (tuple(weight.shape), tuple(state[key].shape))
        for key, weight in expected.items()
        # A lazy layer takes whatever shape it is given.
        if key in state and not is_lazy(weight) and state[key].shape != weight.shape
    }
    problems = []
    if missing:
        problems.append(f"missing {listing(missing)}")
    if unexpected:
        problems.append(f"unexpected {listing(unexpected)}")
    if shapes:
        mismatches = (
            f"{key} is {list(file_shape)}, the model wants {list(expected_shape)}"
            for key, (expected_shape, file_shape) in shapes.items()
        )
        problems.append(f"wrong shapes: {listing(mismatches)}")
    if problems:
        fix = "give the class and arguments that it was trained with (--model)"
        if shapes and not (missing or unexpected):
            fix = _sizes_fix(module, list(shapes.values()))
        problems.append(fix)
    return problems


def _sizes_fix(module: nn.Module, shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """Return advice on how to build the model. shapes: pairs of the model's shape and the file's."""
    axes = [
        (axis, pair)
        for model_shape, file_shape in shapes
        for axis, pair in enumerate(zip_longest(model_shape, file_shape, fillvalue=0))
        if pair[0] != pair[1]
    ]
    sizes, outputs = {pair for _, pair in axes}, all(axis == 0 for axis, _ in axes)
    if len(sizes) > 1:
        return f"build the model with the sizes it was trained with: {model_option(module, {})}"
    ((model_size, file_size),) = sizes
    if outputs and models.is_ours(module):
        return (
            f"it was trained on {file_size} classes, not {model_size}; give their --data, or name them with --classes"
        )
    name = size_argument(module, model_size, outputs=outputs)
    build_advice = f": {model_option(module, {name: file_size})}" if name else ""
    return f"the file has {file_size} where the model has {model_size}; build it with {file_size}{build_advice}"


def listing(items: Iterable[str]) -> str:
    """Return the first five items, and how many more there are."""
    everything = list(items)
    more = len(everything) - _LISTED
    return ", ".join(everything[:_LISTED]) + (f" and {more} more" if more > 0 else "")
