"""An open float ONNX file, as onnxruntime prepares it for quantization."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_checks import refuse_quantized
from toolchain.formats.onnx.edit import add_constant, constant, numbers, rewrite, set_constant, to_proto
from toolchain.formats.onnx.file import write_model
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.formats.onnx.trace import onnx_activations
from toolchain.formats.trace import Values
from toolchain.quantize.float_file import BiasedLayer, without_masks
from toolchain.quantize.keep_onnx import masked_tensors
from toolchain.quantize.onnx import prepare, static_onnx
from toolchain.quantize.onnx_layers import is_float_constant, name_of, weighted
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

if TYPE_CHECKING:
    import onnx_ir as ir

VIEWS = {"Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose answer holds the values that they were given, and zero."""


class FloatOnnx:
    """See `toolchain.quantize.float_file.FloatFile`."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        """Prepare the artifact's graph in a file of the folder; raises CheckpointError when it is quantized already."""
        import onnx_ir as ir

        self.artifact = artifact
        refuse_quantized(without_weights(artifact.path), artifact.path)
        self._path = folder / "prepared.onnx"
        prepare(artifact.path, self._path)
        self.model = ir.from_proto(without_weights(self._path))
        self._layers = {layer: node for node in self.model.graph if (layer := _layer(node))}

    def tensors(self) -> list[str]:
        """Return the float tensors that are computed."""
        import onnx_ir as ir

        graph = self.model.graph
        computed = [graph.inputs[0], *(value for node in graph for value in node.outputs)]
        return [name_of(value) for value in computed if value.dtype == ir.DataType.FLOAT]

    def origins(self) -> dict[str, str]:
        """Return for each tensor its layer, where it has one, and the operator that makes it."""
        graph = onnx_graph(without_weights(self._path))
        layers = {tensor: layer.name for layer in graph.layers for tensor in layer.chain}
        return {name: f"{layers.get(name, '')} {node.kind}".strip() for name, node in graph.makers.items()}

    def layers(self) -> list[BiasedLayer]:
        """Return the layers whose bias is a constant that no other layer reads."""
        return list(self._layers)

    def weighted(self) -> int:
        """Return how many nodes have a constant matrix."""
        return len(weighted(self.model))

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the tensors that enter layers."""

        def views(value: ir.Value | None) -> Iterator[str]:
            yield name_of(value)
            node = None if value is None else value.producer()
            if node is not None and node.op_type in VIEWS:
                yield from views(node.inputs[0])

        weights = weighted(self.model)
        nodes = [node for node in self.model.graph if len(node.inputs) > 1 and name_of(node.inputs[1]) in weights]
        return [tuple(views(node.inputs[0])) for node in nodes]

    def values(self, names: Sequence[str], pixels: NDArray[np.float32]) -> Iterator[Values]:
        """Run the float graph; where a mask takes out a value, it counts as the least of the others."""
        masked = masked_tensors(self._path)
        for tensors in onnx_activations(self._path, names, pixels):
            yield {name: without_masks(values) if name in masked else values for name, values in tensors.items()}

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], pixels: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Run the quantized graph; the values of a quantized tensor are the output of its DequantizeLinear."""
        with tempfile.TemporaryDirectory() as folder:
            # What quantizes the file may change it.
            prepared, quantized = (Path(folder) / name for name in ("prepared.onnx", "quantized.onnx"))
            shutil.copyfile(self._path, prepared)
            reduce_range = step.reduced(saturates=True)
            model = static_onnx(prepared, self.artifact, step, ranges, reduce_range=reduce_range)
            write_model(to_proto(model), quantized)
            computed = {name_of(value) for node in model.graph for value in node.outputs}
            dequantized = {name: f"{name}_DequantizeLinear_Output" for name in names}
            dequantized = {name: output if output in computed else name for name, output in dequantized.items()}
            for values in onnx_activations(quantized, list(dequantized.values()), pixels):
                yield {name: values[output] for name, output in dequantized.items()}

    def move(self, layer: BiasedLayer, by: NDArray[np.float32]) -> None:
        """Add to the layer's bias; a convolution without one gets one."""
        output = name_of(self._layers[layer].outputs[0])

        def move_bias(model: ir.Model) -> bool:
            (node,) = (node for node in model.graph if output in map(name_of, node.outputs))
            if len(node.inputs) < 3:
                node.resize_inputs(3)
                node.replace_input_with(2, add_constant(model.graph, f"{output}_bias", by))
            elif bias := node.inputs[2]:
                set_constant(bias, numbers(bias) + by)
            return True

        rewrite(self._path, move_bias)

    def content(self) -> bytes:
        """Return the prepared graph."""
        return self._path.read_bytes()


def _layer(node: ir.Node) -> BiasedLayer | None:
    """Return the node as a layer, if it has constant weights and no bias that another node reads too."""
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or not is_float_constant(node.inputs[1]):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not bias.is_initializer() or len(bias.uses()) > 1 or len(bias.shape or ()) != 1):
        return None
    if bias is None and node.op_type == "Gemm":
        return None
    readers = node.outputs[0].consumers()
    kind = readers[0].op_type if len(readers) == 1 else ""
    if kind == "Relu":
        return BiasedLayer(name_of(readers[0].outputs[0]), 1, 0.0)
    if kind == "Clip":
        ends = [_scalar(end, empty) for end, empty in zip(readers[0].inputs[1:], (-np.inf, np.inf), strict=False)]
        return BiasedLayer(name_of(readers[0].outputs[0]), 1, *ends)
    return BiasedLayer(name_of(node.outputs[0]), 1)


def _scalar(end: ir.Value | None, empty: float) -> float:
    number = constant(end) if end is not None and end.is_initializer() else None
    return empty if number is None else float(number)
