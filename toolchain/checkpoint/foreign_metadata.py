"""What another program's keys say of the mean and std that a model was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from targets.preprocess import Preprocess

_MEAN = ("mean", "image_mean", "pixel_mean", "norm_mean", "means")
_STD = ("std", "image_std", "pixel_std", "norm_std", "stds")
_PAIR = re.compile(r"^(normali[sz]e|normali[sz]ation|mean_std)$", re.IGNORECASE)
_NUMBER = r"[^\d.a-z-]*(-?\d*\.?\d+)"
# A printed transform: `Normalize(mean=(0.1307,), std=(0.3081,))`, `Normalize((0.1307,), (0.3081,))`.
_PRINTED = re.compile(rf"normalize\((?:mean=)?{_NUMBER}.*?\D(?:std=)?[(\[]{_NUMBER}", re.IGNORECASE)
_DEEPEST = 4
_CHANNELS = 4


def scaling_in(facts: Mapping[Any, Any], depth: int = 0) -> Preprocess | None:
    """Return the first mean and std in what stands beside the weights, None without any.

    They are found under the keys that training scripts use, in nested settings too, as numbers, tensors, lists of
    equal channels, or text. Numbers above 1 are taken for those of pixels from 0 to 255. Only scale, mean and std of
    the result mean anything.
    """
    pairs = [(_first(facts, _MEAN), _first(facts, _STD))]
    for key, value in facts.items():
        if isinstance(value, str) and (printed := _PRINTED.search(value)):
            pairs.append((printed[1], printed[2]))
        if _PAIR.match(str(key)) and isinstance(value, (list, tuple)) and len(value) == 2:
            pairs.append((value[0], value[1]))
    scalings = [_scaling(number_in(mean), number_in(std)) for mean, std in pairs]
    nested = facts.values() if depth < _DEEPEST and not _weights(facts) else ()
    below = (scaling_in(value, depth + 1) for value in nested if isinstance(value, Mapping))
    return next(filter(None, (*scalings, *below)), None)


def unread_in(facts: Mapping[Any, Any], depth: int = 0) -> str:
    """Return a note on a mean or std that `scaling_in` cannot take: without the other, or unlike for each channel."""
    mean, std = _listed(_first(facts, _MEAN)), _listed(_first(facts, _STD))
    if mean and std and _scaling(number_in(mean), number_in(std)) is None:
        return f"the file's mean {mean} and std {std} are not of one channel, so not taken; give --mean and --std"
    if bool(mean) != bool(std):
        only, other, value = ("mean", "std", mean) if mean else ("std", "mean", std)
        return f"the file's {only} {value} has no {other} beside it, and is not taken; give --mean and --std"
    nested = facts.values() if depth < _DEEPEST and not _weights(facts) else ()
    return next(filter(None, (unread_in(one, depth + 1) for one in nested if isinstance(one, Mapping))), "")


def _listed(value: Any) -> list[float]:
    """Return the one to four numbers that a value is; nothing for anything else."""
    if hasattr(value, "tolist") and getattr(value, "ndim", 2) < 2:
        value = value.tolist()
    numbers = [number_in(one) for one in (value if isinstance(value, (list, tuple)) else (value,))]
    return [one for one in numbers if one is not None] if len(numbers) <= _CHANNELS and None not in numbers else []


def number_in(value: Any) -> float | None:
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
        numbers = {number_in(one) for one in value} if 0 < len(value) <= _CHANNELS else set()
        return numbers.pop() if len(numbers) == 1 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    # What was a float32 is written as it was meant.
    return float(f"{value:.6g}")


def _first(facts: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    return next((facts[key] for key in keys if key in facts), None)


def _scaling(mean: float | None, std: float | None) -> Preprocess | None:
    if mean is None or std is None or std <= 0:
        return None
    if max(abs(mean), std) > 1:
        mean, std = float(f"{mean / 255:.6g}"), float(f"{std / 255:.6g}")
    return Preprocess(mean=mean, std=std) if std > 0 else None


def _weights(facts: Mapping[Any, Any]) -> bool:
    """Say whether a mapping is a state_dict, whose layers may have any name."""
    return any(getattr(value, "ndim", 0) > 1 for value in facts.values())
