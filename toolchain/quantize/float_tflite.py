"""An open float TFLite file, through its FlatBuffer (TFLite schema version 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from toolchain.formats.tflite.layers import mapped, parsed
from toolchain.formats.tflite.slim import packed
from toolchain.formats.tflite.trace import tflite_activations
from toolchain.formats.trace import Values
from toolchain.quantize.float_file import NO_VALUE, BiasedLayer, without_masks
from toolchain.quantize.ranges import Ranges
from toolchain.quantize.step import Quantize
from toolchain.quantize.tflite import refuse_quantized, tflite_content
from toolchain.quantize.unsuited_tflite import masked

VIEWS = ("EXPAND_DIMS", "MAX_POOL_2D", "PAD", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Operators whose output holds only values of their input, and zero."""


class FloatTflite:
    """See `toolchain.quantize.float_file.FloatFile`."""

    def __init__(self, artifact: Artifact, _folder: Path) -> None:
        """Unpack the artifact's graph; raises StageError when it is quantized already."""
        from ai_edge_litert import schema_py_generated as schema

        refuse_quantized(artifact)
        self.artifact, self._schema = artifact, schema
        self._model, self._changed = parsed(mapped(artifact.path)), False
        self._graph = self._model.subgraphs[0]
        read = [index for operator in self._graph.operators for index in operator.inputs]
        self._biases = {
            layer: operator.inputs[2]
            for operator in self._graph.operators
            if (layer := self._layer(operator)) and read.count(operator.inputs[2]) == 1
        }

    def tensors(self) -> list[str]:
        """Return the float tensors that are computed."""
        outputs = (index for operator in self._graph.operators for index in operator.outputs)
        computed = [*self._graph.inputs, *outputs]
        float32 = self._schema.TensorType.FLOAT32
        return [self._name(index) for index in computed if self._graph.tensors[index].type == float32]

    def origins(self) -> dict[str, str]:
        """Return nothing: the names of tensors are those of layers."""
        return {}

    def layers(self) -> list[BiasedLayer]:
        """Return the layers whose bias no other operator reads."""
        return list(self._biases)

    def weighted(self) -> int:
        """Return how many operators multiply by weights."""
        return sum(self._kind(operator) in self._kinds() for operator in self._graph.operators)

    def inputs(self) -> list[tuple[str, ...]]:
        """Return the tensors that enter layers."""
        made_by = {index: operator for operator in self._graph.operators for index in operator.outputs}
        kinds = self._schema.BuiltinOperator
        transparent = {getattr(kinds, name) for name in VIEWS}

        def views(index: int) -> Iterator[str]:
            yield self._name(index)
            if index in made_by and self._kind(made_by[index]) in transparent:
                yield from views(made_by[index].inputs[0])

        layers = [operator for operator in self._graph.operators if self._kind(operator) in self._kinds()]
        return [tuple(views(operator.inputs[0])) for operator in layers]

    def values(self, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
        """Run the float file; pads and masks that are no value get the smallest of the others."""
        padded = self._padded()
        for tensors in tflite_activations(self.content(), names, fed):
            yield {name: without_masks(values) if name in padded else values for name, values in tensors.items()}

    def quantized_values(
        self, step: Quantize, ranges: Ranges, names: Sequence[str], fed: NDArray[np.float32]
    ) -> Iterator[Values]:
        """Run the quantized file, which keeps the names."""
        return tflite_activations(tflite_content(self.artifact, self.content(), step, ranges), names, fed)

    def move(self, layer: BiasedLayer, by: NDArray[np.float32]) -> None:
        """Add to the bias, after moving it to a buffer of its own where other tensors share it."""
        tensor = self._graph.tensors[self._biases[layer]]
        buffer = self._model.buffers[tensor.buffer]
        bias = np.frombuffer(bytes(buffer.data), "<f4") + by
        if sum(other.buffer == tensor.buffer for other in self._graph.tensors) > 1:
            buffer, tensor.buffer = self._schema.BufferT(), len(self._model.buffers)
            self._model.buffers.append(buffer)
        buffer.data = np.frombuffer(bias.astype("<f4").tobytes(), np.uint8)
        self._changed = True

    def content(self) -> bytes:
        """Return the file, packed again if it was changed."""
        if not self._changed:
            return self.artifact.path.read_bytes()
        return packed(self._model, self.artifact.size + (1 << 20))

    def _padded(self) -> set[str]:
        """Return the tensors padded with NO_VALUE before a maximum, and the masked ones before a softmax."""
        kinds = self._schema.BuiltinOperator
        masks = {at for _, chain in masked(self._model) for at in chain}
        padded = {self._name(self._graph.operators[at].outputs[0]) for at in masks}
        for node in self._graph.operators:
            readers = [other for other in self._graph.operators if node.outputs[0] in other.inputs]
            if self._kind(node) == kinds.PADV2 and all(self._kind(other) == kinds.MAX_POOL_2D for other in readers):
                value = self._model.buffers[self._graph.tensors[node.inputs[2]].buffer].data
                if value is not None and np.frombuffer(bytes(value), "<f4")[0] <= NO_VALUE:
                    padded.add(self._name(node.outputs[0]))
        return padded

    def _layer(self, operator: Any) -> BiasedLayer | None:
        """Return the operator as a layer, if it has a bias and an activation of known limits."""
        function = self._schema.ActivationFunctionType
        limits = {
            function.NONE: (-np.inf, np.inf),
            function.RELU: (0.0, np.inf),
            function.RELU6: (0.0, 6.0),
            function.RELU_N1_TO_1: (-1.0, 1.0),
        }
        if self._kind(operator) not in self._kinds() or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return None
        activation = operator.builtinOptions.fusedActivationFunction
        output = operator.outputs[0]
        if activation not in limits:
            return None
        return BiasedLayer(self._name(output), len(self._graph.tensors[output].shape) - 1, *limits[activation])

    def _kind(self, operator: Any) -> int:
        kind: int = self._model.operatorCodes[operator.opcodeIndex].builtinCode
        return kind

    def _kinds(self) -> set[int]:
        operator = self._schema.BuiltinOperator
        return {operator.CONV_2D, operator.DEPTHWISE_CONV_2D, operator.FULLY_CONNECTED}

    def _name(self, index: int) -> str:
        name: str = self._graph.tensors[index].name.decode()
        return name
