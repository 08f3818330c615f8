"""Convert a FloatModel to float ONNX: dynamic batch, input `image`, output `logits`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.float_model import FloatModel, OnnxModel
from toolchain.checkpoint.onnx_normal import normalised
from toolchain.checkpoint.torch_files import export_script, is_script
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.export.bounded import bounded, programs_changed
from toolchain.formats.onnx.file import slim_onnx, write_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto
    from torch import nn

OPSET = 18


def write_onnx(model: FloatModel, path: Path, log: Path | None = None) -> None:
    """Write the file, which passes onnx.checker.

    A model that came as ONNX keeps its own graph, brought into our form. Raises StageError when torch cannot export it.
    """
    import onnx

    write_model(slim_onnx(_converted(model, log)), path)
    # By its path: of a graph in memory the checker makes another copy.
    onnx.checker.check_model(path, full_check=True)


def _converted(model: FloatModel, log: Path | None) -> ModelProto | ir.Model:
    if isinstance(model, OnnxModel):
        return _folded(model.graph)
    if is_script(model.module):
        return _from_script(model, model.module, log)
    return _from_torch(model.torch_module("the ONNX export"), model.name, log)


def _folded(proto: ModelProto) -> ModelProto:
    """Return a user's graph with its constants and batch norms folded, as torch's exporter does with its own."""
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules import common

    norms = [
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
    ]
    folded: ModelProto = rewriter.rewrite(optimizer.optimize(proto), norms)
    return folded


def _from_script(model: FloatModel, script: nn.Module, log: Path | None) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model.name}.onnx"
        try:
            with output_to_log(log) as log_file:
                export_script(script, path)
        except Exception as error:
            # torch's older exporter lets out errors of many families.
            raise _refused(model.name, error, log_file) from error
        return _folded(normalised(path, len(model.classes), model.preprocess.label_offset))


def _refused(name: str, error: Exception, log_file: Path) -> StageError:
    return StageError(
        f"{name}: torch cannot export it to ONNX ({first_line(error)}); the converter's whole output is in {log_file}"
    )


def _from_torch(module: nn.Module, name: str, log: Path | None) -> ir.Model:
    import torch
    from torch.onnx import OnnxExporterError

    try:
        with output_to_log(log) as log_file, programs_changed(bounded):
            program = torch.onnx.export(
                module,
                # Two images: a batch of one would be taken for a constant.
                (torch.zeros(2, 1, 28, 28),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                custom_translation_table=_bounded_forms(),
                verbose=False,
            )
    except (OnnxExporterError, RuntimeError, TypeError) as error:
        raise _refused(name, error, log_file) from error
    assert program is not None, "only an export to a file gives None"
    # Its weights are still the module's own.
    model: ir.Model = program.model
    return model


def _bounded_forms() -> dict[Any, Callable[..., Any]]:
    """Return how to write what the exporter writes with an exp that overflows, or a log near 0."""
    import torch
    from onnxscript import opset18 as op

    def logaddexp(first: Any, second: Any) -> Any:
        return op.Add(op.Max(first, second), op.Softplus(op.Neg(op.Abs(op.Sub(first, second)))))

    def log_sigmoid(x: Any) -> Any:
        return op.Neg(op.Softplus(op.Neg(x)))

    def rrelu(x: Any, noise: Any, lower: float = 1 / 8, upper: float = 1 / 3, *_settings: Any) -> Any:
        """Return a leaky ReLU of the mean slope, which RReLU is outside training, and the noise, which is unused."""
        return op.LeakyRelu(x, alpha=(lower + upper) / 2), noise

    aten = torch.ops.aten
    forms = {aten.logaddexp.default: logaddexp, aten.log_sigmoid.default: log_sigmoid}
    return forms | {aten.rrelu_with_noise_functional.default: rrelu}
