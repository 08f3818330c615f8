"""Convert a FloatModel to float TFLite: batch 1, float32 [1, 1, 28, 28] to float32 logits.

The converter holds copies of its own, so the weights of a large model move to a temporary file, and fewer of them are
in memory at once. Its batch norms are folded into the convolutions before them here, since the converter would fold
them with one more copy of all weights in memory.
"""

from __future__ import annotations

import gc
import mmap
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glyphpress.extras import pip_line
from toolchain.checkpoint.float_model import FloatModel
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import PackageMissing, StageError
from toolchain.core.files import require_room
from toolchain.export.bounded import bounded, bounded_forms, operator, programs_changed
from toolchain.formats.tflite.file import mapped, slim_tflite

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

LARGE = 1 << 24
"""Bytes of weights from which moving them is worth the time."""
_SMALL = 1 << 16
"""Tensors of fewer bytes stay in memory."""
_MLIR = re.compile(r"/\S+:\d+:\d+: error: |: %\d+ = .*")
"""Parts of a converter's message that help no user: a line of torch's sources, and the operation as MLIR writes it."""


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
            f"litert-torch is not installed: {pip_line('litert_torch')}, on x86-64 (it has no wheels for other "
            "machines; there, press with --format onnx)"
        )
    import torch

    try:
        with output_to_log(log) as log_file, tempfile.TemporaryDirectory() as folder:
            import litert_torch
            from litert_torch.fx_infra import decomp

            decomp.update_pre_convert_decomp(bounded_forms())
            file = Path(folder) / "model.tflite"
            weights = DiskWeights(module)
            # The norms of a small model are left to the converter, so its weights keep every bit.
            folded = programs_changed(partial(fold_norms, weights=weights)) if weights.size >= LARGE else nullcontext()
            with programs_changed(bounded), folded, _released_when_lowered(weights):
                converted = litert_torch.convert(module, (torch.zeros(1, 1, 28, 28),))
            if weights.size >= LARGE:
                _reload(converted, Path(folder) / "model.mlir")
            converted.export(str(file))
            # Frees the memory of the converter.
            del converted
            path.write_bytes(slim_tflite(mapped(file)))
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


class DiskWeights:
    """The large weights of a module, moved to a temporary file without a name.

    The module answers as before: what it reads is loaded into memory again, and `release` frees that memory and drops
    what was written to the weights meanwhile.
    """

    def __init__(self, module: nn.Module) -> None:
        """Move the weights, unless the module is small. Raises OSError where the disk is full."""
        tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if _movable(tensor)]
        self._pages: list[mmap.mmap] = []
        # Tied weights are one tensor of the file too.
        distinct = {(tensor.data_ptr(), tensor.shape): tensor.detach() for tensor in tensors}
        self.size = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
        if self.size >= LARGE:
            stored = dict(zip(distinct, self.write(distinct.values()), strict=True))
            for tensor in tensors:
                tensor.data = stored[tensor.data_ptr(), tensor.shape]

    def release(self) -> None:
        """Free the memory that reading the weights took."""
        for pages in self._pages:
            pages.madvise(mmap.MADV_DONTNEED)

    def write(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Write tensors to one more file, each before the next is asked for, and return them mapped from it.

        Raises OSError where the disk is full.
        """
        import torch

        layouts = []
        with tempfile.TemporaryFile() as stream:
            for tensor in tensors:
                offset = stream.seek(-stream.tell() % mmap.PAGESIZE, 1)
                stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                layouts.append((offset, tensor.dtype, tensor.shape))
            if not layouts:
                return []
            stream.flush()
            # Private: a write to a weight does not reach the file.
            pages = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._pages.append(pages)
        return [
            torch.frombuffer(pages, dtype=dtype, count=shape.numel(), offset=offset).reshape(shape)
            for offset, dtype, shape in layouts
        ]


def _movable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.nbytes >= _SMALL


def fold_norms(program: ExportedProgram, weights: DiskWeights) -> ExportedProgram:
    """Fold each norm that is the only reader of a convolution, and return the program; `weights` stores the result."""
    import torch

    inputs = _Inputs(program)
    norms = [node for node in program.graph.nodes if _foldable(node, inputs)]
    biases: list[Tensor] = []
    # A generator: each kernel goes to the disk before the next is computed.
    kernels = weights.write(_folded(norm, inputs, biases) for norm in norms)
    for norm, kernel, bias in zip(norms, kernels, biases, strict=True):
        convolution, mean = norm.args[0], norm.args[3]
        # The input of the mean becomes the new bias: not every convolution has one, and nothing else reads the mean.
        inputs.replace(mean, bias)
        inputs.replace(convolution.args[1], torch.nn.Parameter(kernel, requires_grad=False))
        convolution.args = (*convolution.args[:2], mean, *convolution.args[3:])
        norm.replace_all_uses_with(convolution)
        program.graph.erase_node(norm)
    program.graph_module.recompile()
    return program


class _Inputs:
    """The weights and statistics that a program takes as inputs."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._state = program.state_dict

    def __contains__(self, node: Any) -> bool:
        return self._names.get(node.name) in self._state

    def exact(self, node: Any) -> Tensor:
        """Return a float64 copy of an input's tensor."""
        tensor: Tensor = self._state[self._names[node.name]]
        return tensor.detach().double()

    def replace(self, node: Any, tensor: Tensor) -> None:
        self._state[self._names[node.name]] = tensor


def _foldable(norm: Any, inputs: _Inputs) -> bool:
    """Return whether it is a norm of fixed statistics, the only reader of a convolution, and neither shares tensors."""
    if operator(norm) != "batch_norm" or norm.args[5]:
        return False
    convolution, mean = norm.args[0], norm.args[3]
    if operator(convolution) not in ("conv1d", "conv2d", "conv3d") or len(convolution.users) > 1:
        return False
    kernel, *bias = convolution.args[1:3]
    read = [node for node in (kernel, *bias, *norm.args[1:5]) if node is not None]
    return all(node in inputs for node in read) and all(len(node.users) == 1 for node in (kernel, mean))


def _folded(norm: Any, inputs: _Inputs, biases: list[Tensor]) -> Tensor:
    """Return the convolution's weight with the norm folded in, rounded once; append the bias to `biases`."""
    import torch

    gain, offset, mean, variance = norm.args[1:5]
    kernel, *bias = (inputs.exact(node) for node in norm.args[0].args[1:3] if node is not None)
    scale = (inputs.exact(variance) + norm.args[7]).rsqrt()
    if gain is not None:
        scale *= inputs.exact(gain)
    shift = sum(bias) - inputs.exact(mean)
    shift *= scale
    if offset is not None:
        shift += inputs.exact(offset)
    biases.append(shift.to(torch.float32))
    kernel *= scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel.to(torch.float32)
