"""What `glyphpress inspect` finds in a model file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from targets.host.text import json_value


@dataclass(frozen=True)
class InspectedLayer:
    """One operation: its output's shape without the batch axis, its weights, its multiply-accumulates an image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in the file. scales, zero_points: how many quantize it (one, or one a channel); 0 in float."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    scales: int = 0
    zero_points: int = 0


@dataclass(frozen=True)
class Inspection:
    """A model file, taken apart.

    kind: a format's name, or the kind of a checkpoint. packed: bytes once packed, None of a checkpoint and where that
    was not measured.
    parameters: weights, without scales, zero points and shapes. macs: multiply-accumulates an image, of convolutions
    and matrix products; None where the file holds weights alone, or an operator whose products nobody counts. inputs,
    outputs: one line each. tensors: the largest first. metadata: what stands beside the weights. notes: what
    could not be found out, and how it could.
    """

    path: Path
    kind: str
    bytes: int
    sha256: str
    parameters: int
    tensors: tuple[StoredTensor, ...]
    layers: tuple[InspectedLayer, ...] = ()
    macs: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    packed: int | None = None

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Return how many bytes of tensors there are of each dtype, the most first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.dtype] += tensor.bytes
        return dict(sizes.most_common())

    @property
    def quantized(self) -> tuple[StoredTensor, ...]:
        """Return the tensors that have scales."""
        return tuple(tensor for tensor in self.tensors if tensor.scales)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self) | {"path": str(self.path), "bytes_by_dtype": self.bytes_by_dtype}


def left_out(kinds: set[str]) -> tuple[str, ...]:
    """Return the note on operators whose products are not counted, if there are any."""
    return (f"MACs of {', '.join(sorted(kinds))} cannot be counted, so there is no sum",) if kinds else ()


def largest_first(tensors: list[StoredTensor]) -> tuple[StoredTensor, ...]:
    """Return the tensors in the order in which they are shown."""
    return tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name)))


def sidecar_facts(path: Path) -> dict[str, Any]:
    """Return the sidecar of `path`, empty where there is none that can be read."""
    try:
        facts = json_value(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def compared(path: Path) -> dict[str, Any]:
    """Return the `fidelity` of an ONNX file, which stands in a sidecar of the same bytes and not in the file."""
    facts = sidecar_facts(path)
    same = facts.get("fidelity") and facts.get("sha256") == file_sha256(path)
    return {"fidelity": facts["fidelity"]} if same else {}
