"""FloatModel to float TFLite: batch 1, float32 [1, 1, 28, 28] in, float32 logits out."""

from __future__ import annotations

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

from toolchain.errors import PackageMissing, StageError
from toolchain.export.bounded import bounded_forms
from toolchain.export.slim_tflite import slim_tflite
from toolchain.layers.tflite_graph import mapped
from toolchain.model import FloatModel
from toolchain.noise import noise_to

_MLIR = re.compile(r"/\S+:\d+:\d+: error: |: %\d+ = .*")
"""Of a converter's message: a place in torch's own sources, and the whole operation as MLIR writes it."""


def write_tflite(model: FloatModel, path: Path, log: Path | None = None) -> None:
    """Write the file.

    Raises StageError when litert-torch cannot convert the model, or when it came as ONNX and could not be brought back
    to torch; PackageMissing where litert-torch is not installed.
    """
    module = model.torch_module("the TFLite export")
    if find_spec("litert_torch") is None:
        raise PackageMissing(
            "litert-torch is not installed: pip install litert-torch, on x86-64 (it has no wheels for other machines; "
            "there, press with --format onnx)"
        )
    import torch

    try:
        with noise_to(log) as noise, tempfile.TemporaryDirectory() as folder:
            import litert_torch
            from litert_torch.fx_infra import decomp

            decomp.update_pre_convert_decomp(bounded_forms())
            made = Path(folder) / "model.tflite"
            litert_torch.convert(module, (torch.zeros(1, 1, 28, 28),)).export(str(made))
            path.write_bytes(slim_tflite(mapped(made)))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = _MLIR.sub("", str(error).strip().splitlines()[0])[:200]
        raise StageError(
            f"{model.name}: litert-torch cannot convert it to TFLite ({reason}); the whole story is in {noise}"
        ) from error
