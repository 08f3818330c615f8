"""FloatModel to a float ONNX artifact: dynamic batch, input `image`, output `logits`, checked against the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import Artifact
from toolchain.checkpoint.onnx_normal import normalised
from toolchain.errors import StageError
from toolchain.export.parity import check_parity, reference_images, torch_logits
from toolchain.export.seal import Origin, seal
from toolchain.export.slim import slim
from toolchain.model import FloatModel
from toolchain.noise import noise_to
from toolchain.versions import tool_versions

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

OPSET = 18


def export_onnx(
    model: FloatModel, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Write `path` and its sidecar; a model that came as ONNX keeps its own graph, brought into our form.

    The file passes onnx.checker and differs from the model by less than 1e-4 on 256 images (else ParityError).
    Raises StageError when the exporter refuses the model.
    """
    import onnx

    images = reference_images()
    if model.onnx:
        # It was compared with the user's own file when it was brought into our form.
        proto = normalised(model.onnx, len(model.classes), model.preprocess.label_offset)
        check = None
    else:
        module = model.torch_module("the ONNX export")
        proto = _from_torch(module, model.name, log)
        check = partial(check_parity, expected=torch_logits(model, module, images), images=images)
    tools = tool_versions("torch", "onnx", "onnxscript")
    origin = Origin(model.preprocess, model.classes, recipe, model.checkpoint_sha256, tools, notes=model.history)
    slim(proto)
    onnx.checker.check_model(proto, full_check=True)
    return seal(path, origin, lambda part: onnx.save(proto, part), force=force, check=check)


def _from_torch(module: nn.Module, name: str, log: Path | None) -> ModelProto:
    import torch
    from torch.onnx import OnnxExporterError

    # Two images: a batch of one would be taken for a constant.
    sample = torch.zeros(2, 1, 28, 28)
    shared: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"], "opset_version": OPSET}
    batch = torch.export.Dim("batch")
    try:
        with noise_to(log) as noise:
            program = torch.onnx.export(
                module, (sample,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, **shared
            )
    except (OnnxExporterError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"{name}: torch cannot export it to ONNX ({reason}); the whole story is in {noise}") from error
    assert program is not None
    proto: ModelProto = program.model_proto
    return proto
