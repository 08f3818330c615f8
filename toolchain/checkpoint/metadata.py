"""What a checkpoint says about itself: the model's name, its classes, how it wants its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.choice import advice, words_for
from targets.errors import ArtifactError
from targets.host.text import json_value
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.checkpoint.float_model import Range
from toolchain.checkpoint.foreign_metadata import number_in, scaling_in, unread_in
from toolchain.core.errors import CheckpointError, UsageProblem

if TYPE_CHECKING:
    from torch import nn

METADATA_KEY = "glyphpress"


@dataclass(frozen=True)
class Metadata:
    """Facts found in a file; empty where the file says nothing. `options` are arguments of one of our models.

    scaling: mean and std that another program left, where there is no preprocess of ours (`scaling_in`).
    unread: a note on a mean or std of such a program that cannot be taken.
    """

    model: str | None = None
    classes: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    options: dict[str, Any] = field(default_factory=dict)
    scaling: Preprocess | None = None
    unread: str = ""


def metadata_of(facts: Mapping[str, Any]) -> Metadata:
    """Read our keys from what stands beside the weights; what another program means by them is no error."""
    model, classes, options = facts.get("model"), facts.get("classes"), facts.get("options")
    preprocess = _preprocess(facts.get("preprocess"))
    scaling = None if preprocess else scaling_in(facts)
    return Metadata(
        model=model if isinstance(model, str) else None,
        classes=tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else (),
        preprocess=preprocess,
        options=dict(options) if isinstance(options, Mapping) else {},
        scaling=scaling,
        unread="" if preprocess or scaling else unread_in(facts),
    )


def _preprocess(value: object) -> Preprocess | None:
    """Return a preprocess that one of our files holds; a mean and std alone do not say how images are turned."""
    if not isinstance(value, Mapping) or set(value) <= {"mean", "std"}:
        return None
    numbers = {key: number_in(value[key]) for key in ("mean", "std") if key in value}
    try:
        return Preprocess.from_dict(dict(value) | numbers)
    except (ArtifactError, TypeError):
        return None


def metadata_facts(metadata: Mapping[str, str] | None, path: Path) -> Metadata:
    """Read the JSON under `glyphpress` in the metadata of a .safetensors or .onnx file, else what others left there."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        left = dict(map(_parsed, (metadata or {}).items()))
        scaling = scaling_in(left)
        return Metadata(scaling=scaling, unread="" if scaling else unread_in(left))
    try:
        facts = json_value(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its glyphpress metadata is no JSON ({error}); save it again") from error
    return metadata_of(facts) if isinstance(facts, dict) else Metadata()


def _parsed(entry: tuple[str, str]) -> tuple[str, Any]:
    key, text = entry
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def build_reference(path: Path, name: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """Return the reference model `name` with the options that the file at `path` holds.

    Raises CheckpointError that names the file when it cannot be built.
    """
    try:
        return models.build(name, classes, **options)
    except UsageProblem as error:
        raise CheckpointError(f"{path}: {error}") from error


def history(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the stages that made a file wrote about it; `metadata_facts` has read the JSON before."""
    return tuple(map(str, json_value(metadata.get(METADATA_KEY, "{}")).get("history", ())))


def input_ranges(metadata: Mapping[str, str]) -> tuple[Range, ...]:
    """Return what quantization-aware training learned of each layer's input, empty where the file holds none."""
    return tuple(Range(*ends) for ends in json_value(metadata.get(METADATA_KEY, "{}")).get("input_ranges", ()))


def origin(metadata: Mapping[str, str]) -> str | None:
    """Return the digest of the checkpoint that a file says it was made from, None where it says nothing."""
    facts = json_value(metadata.get(METADATA_KEY) or "{}")
    digest = facts.get("checkpoint_sha256") if isinstance(facts, dict) else None
    return digest if isinstance(digest, str) else None


def agreed_classes(
    given: tuple[str, ...], stored: tuple[str, ...], path: Path, *, chosen: bool = False
) -> tuple[str, ...]:
    """Return the classes that both sides name. Raises CheckpointError when they differ or neither names any.

    chosen: `given` stands in options, so it wins over names that are not the data's; the order of the same names is the
    file's to say.
    """
    if not given and not stored:
        raise CheckpointError(
            f"{path} does not say which classes it reads; give --data, or --classes such as 0123456789"
        )
    if not given or not stored or given == stored:
        return given or stored
    if chosen and not set(given) <= set(stored):
        return given
    otherwise = f"; where the file means something else, --classes {words_for(given)} says what its columns stand for"
    hint = advice(stored, given) + ("" if set(given) <= set(stored) else otherwise)
    if len(given) != len(stored):
        raise CheckpointError(f"{path} was trained on {len(stored)} classes, the data has {len(given)}; {hint}")
    place = next(index for index, pair in enumerate(zip(stored, given, strict=True)) if pair[0] != pair[1])
    raise CheckpointError(
        f"{path}: class {place} is '{stored[place]}' in the checkpoint and '{given[place]}' in the data; {hint}"
    )
