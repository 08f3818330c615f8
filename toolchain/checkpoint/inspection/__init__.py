"""Take a checkpoint, an .onnx or a .tflite apart: layers, shapes, parameters, MACs, dtypes, sizes, our metadata."""

from __future__ import annotations

from pathlib import Path

from targets.errors import translated
from toolchain import models
from toolchain.checkpoint.float_model import FloatModel, OnnxModel
from toolchain.checkpoint.kinds import KIND_NAMES, kind_of
from toolchain.core.errors import CheckpointError
from toolchain.formats import catalog
from toolchain.formats.inspection import InspectedLayer, Inspection, StoredTensor

__all__ = ["InspectedLayer", "Inspection", "StoredTensor", "counted", "inspect_file"]


def inspect_file(
    path_or_name: str, *, model: str | None = None, trust_pickle: bool = False, weights: str | None = None
) -> Inspection:
    """Take a model file, or the weights of one of our names, apart.

    model: the words of `--model`; with them the layers and MACs of weights alone are counted too.
    weights: the key of the weights to take, of a file that holds several.
    Raises CheckpointError when it is no model file or cannot be read.
    """
    shipped = models.shipped_weights(path_or_name) if path_or_name in models.names() else None
    if path_or_name in models.names() and shipped is None:
        raise CheckpointError(
            f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name}"
        )
    path = shipped or Path(path_or_name)
    kind = kind_of(path)
    words = KIND_NAMES[kind]
    with translated(lambda reason: CheckpointError(f"{path} is a damaged {words} ({reason}); save or export it again")):
        if kind in catalog.FORMATS:
            return catalog.get(kind).inspect(path)
        from toolchain.checkpoint.inspection.torch_file import inspect_torch

        return inspect_torch(path, kind, model, trust_pickle=trust_pickle, weights=weights)


def counted(model: FloatModel) -> tuple[int | None, int | None]:
    """Return a model's parameters and multiply-accumulates an image; None where not all of them can be counted."""
    if isinstance(model, OnnxModel):
        from toolchain.formats.onnx.inspection import count_onnx

        return count_onnx(model.path)
    from toolchain.checkpoint.inspection.torch_file import module_layers

    if model.refusal:
        return sum(weight.numel() for weight in model.module.parameters()), None
    module = model.torch_module("counting its layers")
    parameters = sum(weight.numel() for weight in module.parameters())
    counts = module_layers(module, model.name)
    return parameters, None if counts.left_out else counts.macs or None
