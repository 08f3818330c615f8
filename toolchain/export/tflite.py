"""FloatModel to a float TFLite artifact, checked against the model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import Artifact
from toolchain.errors import PackageMissing, StageError
from toolchain.export.parity import check_parity, reference_images, torch_logits
from toolchain.export.seal import Origin, seal
from toolchain.model import FloatModel
from toolchain.noise import noise_to
from toolchain.versions import tool_versions

if TYPE_CHECKING:
    from torch import nn


def export_tflite(
    model: FloatModel, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Write `path` and its sidecar: batch 1, float32 [1, 1, 28, 28] in, float32 logits out.

    The file differs from the model by less than 1e-4 on 256 images (else ParityError). Raises StageError when
    the converter refuses the model, or when it came as ONNX and cannot be brought back to torch.
    """
    module = model.torch_module("the TFLite export")
    images = reference_images()
    expected = torch_logits(model, module, images)
    converted = _convert(module, model.name, log)
    tools = tool_versions("torch", "litert-torch")
    origin = Origin(model.preprocess, model.classes, recipe, model.checkpoint_sha256, tools, notes=model.history)

    def write(part: Path) -> None:
        with noise_to(log):
            converted.export(str(part))

    return seal(path, origin, write, force=force, check=lambda artifact: check_parity(artifact, expected, images))


def _convert(module: nn.Module, name: str, log: Path | None) -> Any:
    import torch

    if find_spec("litert_torch") is None:
        raise PackageMissing(
            "litert-torch is not installed: pip install litert-torch, on x86-64 (it has no wheels for other machines; "
            "there, press with --format onnx)"
        )
    try:
        with noise_to(log) as noise:
            import litert_torch

            return litert_torch.convert(module, (torch.zeros(1, 1, 28, 28),))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(
            f"{name}: litert-torch cannot convert it to TFLite ({reason}); the whole story is in {noise}"
        ) from error
