"""Convert a FloatModel to float TFLite: batch 1, float32 [1, 1, 28, 28] to float32 logits."""

from __future__ import annotations

import gc
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolchain.checkpoint.float_model import FloatModel
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import PackageMissing, StageError
from toolchain.core.files import require_room
from toolchain.export.bounded import bounded_forms, bounded_programs
from toolchain.export.large_models import LARGE, DiskWeights, folded_norms
from toolchain.formats.tflite.layers import mapped
from toolchain.formats.tflite.slim import slim_tflite

_MLIR = re.compile(r"/\S+:\d+:\d+: error: |: %\d+ = .*")
"""Parts of a converter's message that help nobody: a line of torch's sources, and the operation as MLIR writes it."""


def write_tflite(model: FloatModel, path: Path, log: Path | None = None) -> None:
    """Write the file.

    Raises StageError when litert-torch cannot convert the model, or when it came as ONNX and could not be brought back
    to torch; PackageMissing where litert-torch is not installed.
    """
    module = model.torch_module("the TFLite export")
    # Where its C++ cannot write, it exits the process with 1, the code of a failed gate.
    require_room(4 * sum(weight.nbytes for weight in module.state_dict().values()) + 1_000_000)
    if find_spec("litert_torch") is None:
        raise PackageMissing(
            "litert-torch is not installed: pip install litert-torch, on x86-64 (it has no wheels for other machines; "
            "there, press with --format onnx)"
        )
    import torch

    try:
        with output_to_log(log) as log_file, tempfile.TemporaryDirectory() as folder:
            import litert_torch
            from litert_torch.fx_infra import decomp

            decomp.update_pre_convert_decomp(bounded_forms())
            made = Path(folder) / "model.tflite"
            weights = DiskWeights(module)
            with bounded_programs(), folded_norms(weights), _released_when_lowered(weights):
                converted = litert_torch.convert(module, (torch.zeros(1, 1, 28, 28),))
            if weights.size >= LARGE:
                _reload(converted, Path(folder) / "model.mlir")
            converted.export(str(made))
            # Frees the memory of the converter.
            del converted
            path.write_bytes(slim_tflite(mapped(made)))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = _MLIR.sub("", str(error).strip().splitlines()[0])[:200]
        raise StageError(
            f"{model.name}: litert-torch cannot convert it to TFLite ({reason}); "
            f"the converter's whole output is in {log_file}"
        ) from error


@contextmanager
def _released_when_lowered(weights: DiskWeights) -> Iterator[None]:
    """Release the memory of each weight as soon as the converter has its copy."""
    from litert_torch.backend import lowerings
    from litert_torch.backend.inline_consts import tensor_lowering_placeholder as weight

    lower = lowerings.lookup(weight)

    def lower_and_release(context: Any, tensor: Any) -> Any:
        try:
            return lower(context, tensor)
        finally:
            weights.release()

    lowerings.lower(weight)(lower_and_release)
    try:
        yield
    finally:
        lowerings.lower(weight)(lower)


def _reload(converted: Any, code: Path) -> None:
    """Write the module of a `LiteRTModel` to a file and read it back: its context keeps every earlier form alive."""
    from litert_converter.mlir import ir  # type: ignore[import-untyped]  # it ships no types
    from litert_torch.backend.export_utils import create_ir_context

    exporter = converted._exporter
    with code.open("wb") as stream:
        exporter.module.operation.write_bytecode(stream)
    exporter.module = None
    gc.collect()
    with create_ir_context():
        exporter.module = ir.Module.parseFile(str(code))
