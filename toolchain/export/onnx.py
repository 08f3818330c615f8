"""FloatModel to float ONNX: dynamic batch, input `image`, output `logits`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.checkpoint.onnx_normal import normalised
from toolchain.errors import StageError
from toolchain.export.slim_onnx import slim_onnx
from toolchain.model import FloatModel
from toolchain.noise import noise_to

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

OPSET = 18


def onnx_content(model: FloatModel, log: Path | None = None) -> bytes:
    """Return the bytes of the file, which pass onnx.checker.

    A model that came as ONNX keeps its own graph, brought into our form. Raises StageError when torch cannot export it.
    """
    import onnx

    if model.onnx:
        proto = _folded(normalised(model.onnx, len(model.classes), model.preprocess.label_offset))
    else:
        proto = _from_torch(model.torch_module("the ONNX export"), model.name, log)
    onnx.checker.check_model(slim_onnx(proto), full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _folded(proto: ModelProto) -> ModelProto:
    """Return a user's graph with its constants and batch norms folded, as torch's exporter does with its own."""
    from onnxscript import optimizer, rewriter

    optimized: ModelProto = rewriter.rewrite(optimizer.optimize(proto))
    return optimized


def _from_torch(module: nn.Module, name: str, log: Path | None) -> ModelProto:
    import torch
    from torch.onnx import OnnxExporterError

    try:
        with noise_to(log) as noise:
            program = torch.onnx.export(
                module,
                # Two images: a batch of one would be taken for a constant.
                (torch.zeros(2, 1, 28, 28),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
    except (OnnxExporterError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"{name}: torch cannot export it to ONNX ({reason}); the whole story is in {noise}") from error
    assert program is not None, "only an export to a file gives None"
    proto: ModelProto = program.model_proto
    return proto
