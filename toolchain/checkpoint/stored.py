"""What a checkpoint says about itself: the model's name, its classes, how it wants its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.choice import advice
from targets.errors import ArtifactError
from targets.preprocess import Preprocess
from toolchain.errors import CheckpointError
from toolchain.model import Range

METADATA_KEY = "glyphpress"


@dataclass(frozen=True)
class Stored:
    """Facts found in a file; empty where the file says nothing. `options` are arguments of one of our models."""

    model: str | None = None
    classes: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    options: dict[str, Any] = field(default_factory=dict)


def stored_facts(facts: Mapping[str, Any], path: Path) -> Stored:
    """Read our keys from what stands beside the weights. Raises CheckpointError on values that cannot be meant."""
    model, classes, preprocess = facts.get("model"), facts.get("classes"), facts.get("preprocess")
    options = facts.get("options")
    try:
        return Stored(
            model=model if isinstance(model, str) else None,
            classes=tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else (),
            preprocess=Preprocess.from_dict(dict(preprocess)) if isinstance(preprocess, Mapping) else None,
            options=dict(options) if isinstance(options, Mapping) else {},
        )
    except (ArtifactError, TypeError) as error:
        raise CheckpointError(f"{path}: its preprocess cannot be read ({error}); give it with options") from error


def metadata_facts(metadata: Mapping[str, str] | None, path: Path) -> Stored:
    """Read the JSON under `glyphpress` in the metadata of a .safetensors or .onnx file."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return Stored()
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its glyphpress metadata is no JSON ({error}); save it again") from error
    return stored_facts(facts, path) if isinstance(facts, dict) else Stored()


def history(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the stages that made a file wrote about it; `metadata_facts` has read the JSON before."""
    return tuple(map(str, json.loads(metadata.get(METADATA_KEY, "{}")).get("history", ())))


def input_ranges(metadata: Mapping[str, str]) -> tuple[Range, ...]:
    """Return what quantization-aware training learned of each layer's input, empty where the file holds none."""
    return tuple(Range(*ends) for ends in json.loads(metadata.get(METADATA_KEY, "{}")).get("input_ranges", ()))


def origin(metadata: Mapping[str, str]) -> str | None:
    """Return the digest of the checkpoint that a file says it was made from, None where it says nothing."""
    facts = json.loads(metadata.get(METADATA_KEY) or "{}")
    digest = facts.get("checkpoint_sha256") if isinstance(facts, dict) else None
    return digest if isinstance(digest, str) else None


def agreed_classes(given: tuple[str, ...], stored: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the classes that both sides name. Raises CheckpointError when they differ or neither names any."""
    if not given and not stored:
        raise CheckpointError(
            f"{path} does not say which classes it reads; give --data, or --classes such as 0123456789"
        )
    if not given or not stored or given == stored:
        return given or stored
    if len(given) != len(stored):
        raise CheckpointError(
            f"{path} was trained on {len(stored)} classes, the data has {len(given)}; {advice(stored, given)}"
        )
    place = next(index for index, pair in enumerate(zip(stored, given, strict=True)) if pair[0] != pair[1])
    raise CheckpointError(
        f"{path}: class {place} is '{stored[place]}' in the checkpoint and '{given[place]}' in the data; "
        f"{advice(stored, given)}"
    )
