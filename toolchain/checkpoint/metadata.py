"""What a checkpoint says about itself: the model's name, its classes, how it wants its images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.spec import advice, classes_text
from targets.errors import ArtifactError
from targets.host.text import json_value
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.core.errors import CheckpointError, ClassesUnknown, OptionNeeded, UsageProblem
from toolchain.core.quantities import counted

if TYPE_CHECKING:
    from torch import nn

METADATA_KEY = "glyphpress"
_MEAN = ("mean", "image_mean", "pixel_mean", "norm_mean", "means")
_STD = ("std", "image_std", "pixel_std", "norm_std", "stds")
_PAIR = re.compile(r"^(normali[sz]e|normali[sz]ation|mean_std)$", re.IGNORECASE)
_NUMBER = r"[^\d.a-z-]*(-?\d*\.?\d+)"
# A printed transform: `Normalize(mean=(0.1307,), std=(0.3081,))`, `Normalize((0.1307,), (0.3081,))`.
_PRINTED = re.compile(rf"normalize\((?:mean=)?{_NUMBER}.*?\D(?:std=)?[(\[]{_NUMBER}", re.IGNORECASE)
_NAMES = ("class_names", "class_labels", "label_names", "labels", "idx_to_class", "id2label")
_NUMBERS_BY_NAME = ("class_to_idx", "label2id")
"""Where training scripts store the names of their classes: in a list or by number, and the numbers by name."""
_DEEPEST = 4
_CHANNELS = 4
_COLOURS = 3


@dataclass(frozen=True)
class Metadata:
    """Facts found in a file; empty where the file says nothing.

    options: arguments of one of our models. scaling: mean and std that another program stored, where there is no
    preprocess of ours (`scaling_in`). unread: a note on a mean or std of such a program that cannot be used. names: of
    the columns, where such a program stored them. by_channel: means and standard deviations that it stored for three
    channels, of pixels from 0 to 1; a model of three channels can use them.
    """

    model: str | None = None
    classes: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    options: dict[str, Any] = field(default_factory=dict)
    scaling: Preprocess | None = None
    unread: str = ""
    names: tuple[str, ...] = ()
    by_channel: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def metadata_of(facts: Mapping[str, Any]) -> Metadata:
    """Read our keys from what is stored beside the weights; values of another program under them are ignored."""
    model, classes, options = facts.get("model"), facts.get("classes"), facts.get("options")
    preprocess = _preprocess(facts.get("preprocess"))
    return replace(
        Metadata() if preprocess else _foreign(facts),
        names=names_in(facts),
        model=model if isinstance(model, str) else None,
        classes=tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else (),
        preprocess=preprocess,
        options=dict(options) if isinstance(options, Mapping) else {},
    )


def _foreign(facts: Mapping[Any, Any]) -> Metadata:
    scaling = scaling_in(facts)
    if scaling:
        return Metadata(scaling=scaling)
    return Metadata(unread=_unread_in(facts), by_channel=_by_channel_in(facts))


def names_in(facts: Mapping[Any, Any], depth: int = 0) -> tuple[str, ...]:
    """Return the names of the columns that another program stored, in its settings too; () without any."""
    for key in filter(facts.__contains__, (*_NAMES, *_NUMBERS_BY_NAME)):
        columns = _columns(facts[key], swapped=key in _NUMBERS_BY_NAME)
        count = len(facts[key]) if columns else 0
        if sorted(columns) == list(range(count)) and len(set(columns.values())) == count > 1:
            return tuple(columns[index] for index in range(count))
    return next(filter(None, (names_in(inner, depth + 1) for inner in _nested(facts, depth))), ())


def _columns(value: object, *, swapped: bool) -> dict[int, str]:
    """Return names by the numbers of their columns. swapped: `value` has the numbers by the names."""
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    pairs = [pair if swapped else pair[::-1] for pair in items]
    # Keys of JSON are text.
    return {int(number): name for name, number in pairs if isinstance(name, str) and str(number).isdecimal()}


def _preprocess(value: object) -> Preprocess | None:
    """Return a preprocess that one of our files holds; a mean and std alone do not give the orientation."""
    if not isinstance(value, Mapping) or set(value) <= {"mean", "std"}:
        return None
    numbers = {key: _number_in(value[key]) for key in ("mean", "std") if key in value}
    try:
        return Preprocess.from_dict(dict(value) | numbers)
    except (ArtifactError, TypeError):
        return None


def metadata_facts(metadata: Mapping[str, str], path: Path) -> Metadata:
    """Read the JSON under `glyphpress` in a file's metadata, or else the scaling that another program stored there."""
    if METADATA_KEY in metadata:
        return metadata_of(our_facts(metadata, path))
    return _foreign(read_values(metadata))


def read_values(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return a file's metadata with the JSON in it read."""
    return dict(map(_parsed, metadata.items()))


def our_facts(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return what glyphpress wrote in a file's metadata, {} for nothing. Raises CheckpointError where it is no JSON."""
    try:
        facts = json_value(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: its glyphpress metadata is no JSON ({error}); save it again") from error
    return facts if isinstance(facts, dict) else {}


def _parsed(entry: tuple[str, str]) -> tuple[str, Any]:
    key, text = entry
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def build_reference(path: Path, name: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """Return the reference model `name` with the options of a file. Raises CheckpointError where it cannot be built."""
    if name not in models.names():
        raise OptionNeeded(f"{path} holds the weights of {name}, none of our models; name its class with --model")
    try:
        return models.build(name, classes, **options)
    except UsageProblem as error:
        raise CheckpointError(f"{path}: {error}") from error


def agreed_classes(
    given: tuple[str, ...], stored: tuple[str, ...], path: Path, *, chosen: bool = False, names: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the classes that both sides name.

    The same names in another order are taken in that of the file, which says what its columns are.

    Raises CheckpointError when they differ otherwise, ClassesUnknown when neither names any.

    chosen: `given` comes from --classes, so it wins over other names in the file, and its order must be that of the
    file. names: of another program, which count where nothing else is known, or for the order of the same names.
    """
    if names and not stored and (not given or set(names) == set(given)):
        stored = names
    if not given and not stored:
        raise ClassesUnknown(
            f"{path} does not say which classes it reads; give --data, or --classes such as 0123456789"
        )
    if not given or not stored or given == stored:
        return given or stored
    if not chosen and sorted(given) == sorted(stored):
        return stored
    if chosen and not set(given) <= set(stored):
        return given
    rename_hint = (
        f"; where the file means something else, --classes {classes_text(given)} says what its columns stand for"
    )
    hint = advice(stored, given) + ("" if set(given) <= set(stored) else rename_hint)
    if len(given) != len(stored):
        raise CheckpointError(
            f"{path} was trained on {counted(len(stored), 'class', 'classes')}, the data has {len(given)}; {hint}"
        )
    index = next(index for index, pair in enumerate(zip(stored, given, strict=True)) if pair[0] != pair[1])
    raise CheckpointError(
        f"{path}: class {index} is '{stored[index]}' in the checkpoint and '{given[index]}' in the data; {hint}"
    )


def scaling_in(facts: Mapping[Any, Any], depth: int = 0) -> Preprocess | None:
    """Return the first mean and std among facts beside the weights, None without any.

    They are found under the keys that training scripts use, in nested settings too, as numbers, tensors, lists of
    equal channels, or text. Numbers above 1 are for pixels from 0 to 255. Only scale, mean and std of the result have
    a meaning.
    """
    pairs = [(_first(facts, _MEAN), _first(facts, _STD))]
    for key, value in facts.items():
        if isinstance(value, str) and (printed := _PRINTED.search(value)):
            pairs.append((printed[1], printed[2]))
        if _PAIR.match(str(key)) and isinstance(value, (list, tuple)) and len(value) == 2:
            pairs.append((value[0], value[1]))
    scalings = [_scaling(_number_in(mean), _number_in(std)) for mean, std in pairs]
    return next(filter(None, (*scalings, *(scaling_in(inner, depth + 1) for inner in _nested(facts, depth)))), None)


def _nested(facts: Mapping[Any, Any], depth: int) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings in a mapping, but not those of a state_dict, whose layers may have any name."""
    if depth < _DEEPEST and not any(getattr(value, "ndim", 0) > 1 for value in facts.values()):
        yield from (value for value in facts.values() if isinstance(value, Mapping))


def _by_channel_in(facts: Mapping[Any, Any], depth: int = 0) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the first means and standard deviations of three channels among facts, None without any."""
    pairs = [(_first(facts, _MEAN), _first(facts, _STD))]
    for key, value in facts.items():
        if _PAIR.match(str(key)) and isinstance(value, (list, tuple)) and len(value) == 2:
            pairs.append((value[0], value[1]))
    for mean, std in pairs:
        means, stds = _numbers(mean), _numbers(std)
        if len(means) == len(stds) == _COLOURS and min(stds) > 0:
            by = 255 if max(*map(abs, means), *stds) > 1 else 1
            return tuple(value / by for value in means), tuple(value / by for value in stds)
    return next(filter(None, (_by_channel_in(inner, depth + 1) for inner in _nested(facts, depth))), None)


def _unread_in(facts: Mapping[Any, Any], depth: int = 0) -> str:
    """Return a note on a mean or std that `scaling_in` cannot use: one alone, or one that differs between channels."""
    mean, std = _numbers(_first(facts, _MEAN)), _numbers(_first(facts, _STD))
    if mean and std and _scaling(_number_in(mean), _number_in(std)) is None:
        return f"the file's mean {mean} and std {std} are not of one channel, so not taken; give --mean and --std"
    if bool(mean) != bool(std):
        present, absent, value = ("mean", "std", mean) if mean else ("std", "mean", std)
        return f"the file's {present} {value} has no {absent} beside it, and is not taken; give --mean and --std"
    return next(filter(None, (_unread_in(inner, depth + 1) for inner in _nested(facts, depth))), "")


def _numbers(value: Any) -> list[float]:
    """Return the one to four numbers that a value is; nothing for anything else."""
    if hasattr(value, "tolist") and getattr(value, "ndim", 2) < 2:
        value = value.tolist()
    numbers = [_number_in(item) for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return [item for item in numbers if item is not None] if len(numbers) <= _CHANNELS and None not in numbers else []


def _number_in(value: Any) -> float | None:
    """Return the number that a value is, alone or the same for each channel; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        if value.ndim and max(value.shape) > _CHANNELS:
            return None
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        numbers = {_number_in(item) for item in value} if 0 < len(value) <= _CHANNELS else set()
        return numbers.pop() if len(numbers) == 1 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    # Six digits, so that the float32 nearest to 0.1307 becomes 0.1307 again.
    return float(f"{value:.6g}")


def _first(facts: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    return next((facts[key] for key in keys if key in facts), None)


def _scaling(mean: float | None, std: float | None) -> Preprocess | None:
    if mean is None or std is None or std <= 0:
        return None
    if max(abs(mean), std) > 1:
        mean, std = float(f"{mean / 255:.6g}"), float(f"{std / 255:.6g}")
    return Preprocess(mean=mean, std=std) if std > 0 else None
