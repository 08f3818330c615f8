"""Save trained weights: a `.pt` of plain types, which loads with weights_only, or a `.safetensors`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import is_full, refuse_existing, whole_file
from toolchain.core.quantities import size_text

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA = "glyphpress/checkpoint/1"
SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")


def refuse_unfit(path: Path, *, force: bool) -> None:
    """Raise UsageProblem when `save` would refuse `path`; call it before a long training."""
    if path.suffix not in SUFFIXES:
        raise UsageProblem(f"{path} is not a name for weights; let it end in {', '.join(SUFFIXES)}")
    refuse_existing(path, force=force)


def save(path: Path, module: nn.Module, facts: dict[str, Any], *, half: bool = False, force: bool = False) -> None:
    """Write the weights of `module` with `facts` beside them, whole or not at all.

    facts: JSON types: model, options, classes, preprocess, settings, seed, data ... In a `.pt` they are beside
    `schema` and `state_dict`; in a `.safetensors` they are the JSON text of the metadata key `glyphpress`. half: store
    the weights of layers as float16, half the bytes; loading computes with them in float32. Vectors (biases and batch
    norms), which take little room, stay float32.
    Raises StageError when it cannot be written; the old file at `path` is kept then.
    """
    import torch
    from safetensors.torch import save as safetensors

    refuse_unfit(path, force=force)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if half:
        weights = {name: _half(tensor) for name, tensor in weights.items()}
    description = {"schema": SCHEMA} | facts
    if path.suffix == ".safetensors":
        content = safetensors(weights, metadata={"glyphpress": json.dumps(description, allow_nan=False)})
    else:
        # Through memory, since torch does not report a full disk as an OSError.
        buffer = io.BytesIO()
        torch.save(description | {"state_dict": weights}, buffer)
        content = buffer.getvalue()
    try:
        with whole_file(path, force=force) as part:
            part.write_bytes(content)
    except OSError as error:
        room = f"free {size_text(len(content))} or " if is_full(error) else ""
        raise StageError(f"{path} could not be written ({error.strerror}); {room}name another place") from error


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor
