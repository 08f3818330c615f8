"""An open float ONNX file, as onnxruntime prepares it for quantization."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.onnxruntime.protobuf import without_weights
from toolchain.checkpoint.onnx_files import refuse_quantized
from toolchain.formats.activations import Values, onnx_activations
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.formats.onnx.write import write_model
from toolchain.quantize.float_file import BiasedLayer, without_masks
from toolchain.quantize.masked_onnx import masked_tensors
from toolchain.quantize.onnx import prepare, static_onnx
from toolchain.quantize.onnx_layers import weighted
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize

if TYPE_CHECKING:
    from onnx import NodeProto

VIEWS = {"Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose answer holds the values that they were given, and zero."""


class FloatOnnx:
    """See `toolchain.quantize.float_file.FloatFile`."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        """Prepare the artifact's graph in a file of the folder; raises CheckpointError when it is quantized already."""
        self.artifact = artifact
        refuse_quantized(without_weights(artifact.path), artifact.path)
        self._path = folder / "prepared.onnx"
        prepare(artifact.path, self._path)
        self.model = without_weights(self._path)
        graph = self.model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._layers = {layer: node for node in graph.node if (layer := self._layer(node))}

    def tensors(self) -> list[str]:
        """Return the float tensors that are computed."""
        from onnx import TensorProto

        graph = self.model.graph
        described = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        computed = [graph.input[0].name, *(name for node in graph.node for name in node.output)]
        return [
            name
            for name in computed
            if name in described and described[name].type.tensor_type.elem_type == TensorProto.FLOAT
        ]

    def origins(self) -> dict[str, str]:
        """Return the operator of each tensor, behind the layer that it belongs to."""
        graph = onnx_graph(self.model)
        layers = {tensor: layer.name for layer in graph.layers for tensor in layer.chain}
        return {name: f"{layers.get(name, '')} {node.kind}".strip() for name, node in graph.makers.items()}

    def layers(self) -> list[BiasedLayer]:
        """Return the layers whose bias is a constant of their own."""
        return list(self._layers)

    def weighted(self) -> int:
        """Return how many nodes have a constant matrix."""
        return len(weighted(self.model))

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the tensors that enter layers."""
        made_by = {name: node for node in self.model.graph.node for name in node.output}

        def views(name: str) -> Iterator[str]:
            yield name
            if name in made_by and made_by[name].op_type in VIEWS:
                yield from views(made_by[name].input[0])

        constant = weighted(self.model)
        nodes = [node for node in self.model.graph.node if len(node.input) > 1 and node.input[1] in constant]
        return [tuple(views(node.input[0])) for node in nodes]

    def values(self, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
        """Run the float graph; where a mask takes out a value, it counts as the least of the others."""
        masked = masked_tensors(self._path)
        for held in onnx_activations(self._path, names, fed):
            yield {name: without_masks(values) if name in masked else values for name, values in held.items()}

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], fed: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Run the quantized graph; a tensor's real numbers stand behind its DequantizeLinear."""
        with tempfile.TemporaryDirectory() as folder:
            # What quantizes the file may change it.
            prepared, quantized = (Path(folder) / name for name in ("prepared.onnx", "quantized.onnx"))
            shutil.copyfile(self._path, prepared)
            reduce_range = step.reduced(saturates=True)
            write_model(static_onnx(prepared, self.artifact, step, ranges, reduce_range=reduce_range), quantized)
            there = {name for node in without_weights(quantized).graph.node for name in node.output}
            behind = {name: f"{name}_DequantizeLinear_Output" for name in names}
            behind = {name: inner if inner in there else name for name, inner in behind.items()}
            for values in onnx_activations(quantized, list(behind.values()), fed):
                yield {name: values[inner] for name, inner in behind.items()}

    def move(self, layer: BiasedLayer, by: NDArray[np.float32]) -> None:
        """Add to the bias; a convolution without one gets it."""
        import onnx
        from onnx import numpy_helper

        model = onnx.load(self._path)
        output = self._layers[layer].output[0]
        node = next(one for one in model.graph.node if output in one.output)
        if len(node.input) < 3:
            node.input.append(f"{output}_bias")
            model.graph.initializer.append(numpy_helper.from_array(by, node.input[2]))
        else:
            bias = next(one for one in model.graph.initializer if one.name == node.input[2])
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + by, bias.name))
        write_model(model, self._path)

    def content(self) -> bytes:
        """Return the prepared graph."""
        return self._path.read_bytes()

    def _layer(self, node: NodeProto) -> BiasedLayer | None:
        """Return the node as a layer, if it has constant weights and no bias that another node reads too."""
        if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or node.input[1] not in self._constants:
            return None
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and (bias not in self._constants or len(self._readers[bias]) > 1 or self._dims(bias) != 1):
            return None
        if not bias and node.op_type == "Gemm":
            return None
        after = self._readers.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Relu":
            return BiasedLayer(after[0].output[0], 1, 0.0)
        if len(after) == 1 and after[0].op_type == "Clip":
            ends = [
                self._scalar(name, empty) for name, empty in zip(after[0].input[1:], (-np.inf, np.inf), strict=False)
            ]
            return BiasedLayer(after[0].output[0], 1, *ends)
        return BiasedLayer(node.output[0], 1)

    def _dims(self, constant: str) -> int:
        return len(self._constants[constant].dims)

    def _scalar(self, name: str, empty: float) -> Any:
        from onnx import numpy_helper

        return float(numpy_helper.to_array(self._constants[name])) if name in self._constants else empty
