"""A model file of any format: its operators and layers, the layers' results, and the kernels that run them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed, nearest
from targets.host.local_target import operators
from targets.host.runtime_session import TensorCodec
from targets.host.text import argument
from targets.session import Operator
from toolchain.core.errors import UsageProblem

Values = dict[str, NDArray[np.float32]]
"""Layer or tensor -> its values, float32 [N, ...]; integers are dequantized."""
NOT_FLOAT = ""
"""Kind under which weights of other types than float32 are counted."""
AT_RUN_TIME = "its input is quantized in each inference"
EXPANDED = "its weights are expanded to float when the file is loaded"
FLOAT_WEIGHTS = "its weights are float: kept so, or of a kind that the quantizer leaves alone"
NO_KERNEL = "the runtime has no integer kernel for it"
LEFT_FLOAT = "the quantizer leaves it in float"
BETWEEN_FLOATS = "its input is float"
"""Reasons why an operator runs in float or is slow, the same for every format."""


@dataclass(frozen=True)
class Node:
    """An operator. Tensors have the names that the format's reader gives them; an omitted optional input is empty."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor stored in the file, or computed from stored ones alone.

    name, dtype, size: of the stored tensor; size is its number of elements. through: the kinds of operators that are
    applied to it, in their order; empty for the stored tensor itself.
    """

    name: str
    dtype: str
    size: int
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """An operator with weights.

    name: that of its weights, as in a profile. node: its index in `Graph.nodes`. chain: the tensor that it writes, and
    those of the following operators that belong to it (bias, activation, quantization, dequantization); the last one is
    its result. copies: other tensors with the same values as the result.
    """

    name: str
    kind: str
    node: int
    weights: Constant
    chain: tuple[str, ...]
    copies: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        """The tensor that the next layers read."""
        return self.chain[-1]


@dataclass(frozen=True)
class Graph:
    """The operators of a file in the order of execution.

    constants: by the name of the tensor. codecs: the quantization of each tensor that has a single scale, by its name;
    a dequantized tensor has that of its integers. weighted: kind of operator -> index of the input that holds its
    weights. followed: kinds that belong to the layer before them. layer_names: tensor of weights -> the layer's name.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Constant]
    codecs: dict[str, TensorCodec]
    weighted: dict[str, int]
    followed: frozenset[str]
    layer_names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The operators that read each tensor."""
        consumers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.inputs)):
                consumers[name].append(node)
        return consumers

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The operator that writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The operators with weights, in the order of execution; the second of a name becomes `name#2`, and so on."""
        uses: Counter[str] = Counter()
        layers = []
        for number, node in enumerate(self.nodes):
            weights = self._weights(node)
            if weights is None:
                continue
            name = self.layer_names.get(weights.name) or weights.name
            uses[name] += 1
            unique = name if uses[name] == 1 else f"{name}#{uses[name]}"
            layers.append(Layer(unique, node.kind, number, weights, *self._chain(node)))
        return tuple(layers)

    def _weights(self, node: Node) -> Constant | None:
        index = self.weighted.get(node.kind)
        if index is None or len(node.inputs) <= index or node.outputs[0] in self.constants:
            return None
        return self.constants.get(node.inputs[index])

    def _chain(self, node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return `Layer.chain` and `Layer.copies` of an operator with weights."""
        chain, copies = [node.outputs[0]], tuple[str, ...]()
        while chain[-1] not in self.outputs and not copies:
            readers = self.consumers[chain[-1]]
            copied = all(reader.kind == "DequantizeLinear" for reader in readers)
            if not readers or (len(readers) > 1 and not copied) or not self._belongs(readers[0], chain[-1], node.kind):
                break
            chain.append(readers[0].outputs[0])
            copies = tuple(reader.outputs[0] for reader in readers[1:])
        return tuple(chain), copies

    def _belongs(self, node: Node, tensor: str, kind: str) -> bool:
        """Return whether an operator that reads `tensor` is the activation, bias or scale of a layer of `kind`."""
        others = [name for name in node.inputs if name and name != tensor]
        if node.kind.upper() in ("ADD", "MUL"):
            scaled = kind.endswith("Integer") and node.kind == "Mul"
            return scaled or (bool(others) and all(name in self.constants for name in others))
        return node.kind in self.followed


class FloatParts(ABC):
    """Which operators and weights of a quantized file are still float."""

    @abstractmethod
    def operators(self) -> set[str]:
        """Return the kinds of operators of a statically quantized file that compute in float.

        Conversions at its inputs and outputs do not count.
        """

    def weights(self) -> Counter[str]:
        """Return how many float32 weights operators of each kind read, and under NOT_FLOAT how many have other types.

        A weight is a constant with two or more axes longer than 1, unlike biases, scales and shapes. One that no
        operator reads counts under `nothing`.
        """
        counts: Counter[str] = Counter()
        for shape, is_float, reader in self.constants():
            if sum(size > 1 for size in shape) > 1:
                counts[(reader or "nothing") if is_float else NOT_FLOAT] += prod(shape)
        return counts

    @abstractmethod
    def constants(self) -> Iterator[tuple[Sequence[int], bool, str | None]]:
        """Yield the shape of each stored tensor, whether it is float32, and the kind of its first reader."""


def layers_to_keep(graph: Graph, names: Collection[str], file: str) -> tuple[Layer, ...]:
    """Return the layers of these names, which stay float, in the order of execution.

    file: the file's name, for errors. Raises UsageProblem where the file has no layer of a name (with the nearest
    ones), or where every layer would be kept float.
    """
    layer_names = [layer.name for layer in graph.layers]
    for name in names:
        if name not in layer_names:
            near = nearest(name, layer_names, f"`glyphpress inspect {argument(file)}` lists them")
            raise UsageProblem(f"{file} has no layer '{name}' to keep float; {near}")
    layers = tuple(layer for layer in graph.layers if layer.name in names)
    if layers and len(layers) == len(layer_names):
        raise UsageProblem(f"{file}: every layer is to be kept float, so there is nothing to quantize; keep fewer")
    return layers


class Trace(ABC):
    """A model file, opened so that the result of every layer can be read."""

    def __init__(self, artifact: Artifact, graph: Graph) -> None:
        """Take the file and its graph."""
        self.artifact, self.graph = artifact, graph

    @property
    def fixed_batch(self) -> int:
        """Return the batch that the file fixes, 0 where it takes any."""
        return max(self.artifact.inputs[0].shape[0], 0)

    @property
    def batch(self) -> int:
        """Return how many images to run at once."""
        return self.fixed_batch

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the result of every layer when the file runs on `pixels`, preprocessed as it takes them."""
        return self.by_layer(self.run(self._whole_session, pixels, {}))

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the result of every layer when those before it return `exact`, rounded as the file rounds it."""
        rounded = {}
        for layer in self.graph.layers:
            values, codec = exact[layer.name], self.graph.codecs.get(layer.result)
            rounded[layer.result] = codec.decode(codec.encode(values)).reshape(values.shape) if codec else values
        inputs = {tensor: rounded[tensor] for tensor in self._inner_results}
        return self.by_layer(self.run(self._alone_session, pixels, inputs))

    @property
    def _inner_results(self) -> tuple[str, ...]:
        """The results of layers that are not outputs of the file."""
        results = dict.fromkeys(layer.result for layer in self.graph.layers)
        return tuple(tensor for tensor in results if tensor not in self.graph.outputs)

    @cached_property
    def _whole_session(self) -> Any:
        return self.session(())

    @cached_property
    def _alone_session(self) -> Any:
        return self.session(self._inner_results)

    @abstractmethod
    def session(self, replaced: Sequence[str]) -> Any:
        """Return what `run` runs: the file, whose operators read inputs in place of the tensors `replaced`.

        Raises StageError where the runtime refuses it.
        """

    @abstractmethod
    def run(self, session: Any, pixels: NDArray[Any], inputs: Values) -> Mapping[str, NDArray[Any]]:
        """Return the results of layers by tensor; inputs: the values of the tensors that the session replaced."""

    def by_layer(self, results: Mapping[str, NDArray[Any]]) -> Values:
        """Return the results of all layers by the layer's name; results: by tensor, as the runtime returned them."""
        values = {}
        for layer in self.graph.layers:
            result, codec = results[layer.result], self.graph.codecs.get(layer.result)
            if codec is not None and result.dtype.kind != "f":
                result = codec.decode(result)
            values[layer.name] = result.astype(np.float32, copy=False)
        return values


def input_batches(artifact: Artifact, images: CalibrationSet) -> NDArray[np.float32]:
    """Return the file's input for each image, float32 [N, batch, ...]; the image is repeated to fill a fixed batch."""
    batch, *rest = artifact.inputs[0].shape
    pixels = artifact.preprocess.apply(images.images).reshape(-1, 1, *rest)
    return np.repeat(pixels, max(1, batch), axis=1)


@dataclass(frozen=True)
class Kernel:
    """The kernel that the runtime runs for an operator of the file.

    layer: the layer's name, empty for an operator without weights. operator: the kind that the runtime runs, which may
    differ from the kind in the file. integer: whether it multiplies integers. reason: why it runs in float, or a remark
    on an integer kernel.
    """

    layer: str
    operator: str
    integer: bool
    reason: str = ""


class Diagnosis:
    """Why one file is slow. The file is opened once, when a method first needs it."""

    def __init__(self, artifact: Artifact, *known: str) -> None:
        """Take the file; known: reasons that hold for every file of its format."""
        self.artifact, self._known = artifact, known

    @cached_property
    def operators(self) -> Sequence[Operator]:
        """The operators that the format's default runtime runs, with their times; empty where it has no profiler."""
        try:
            return operators(self.artifact, catalog.default_for(self.artifact.format))
        except RunFailed:
            return ()

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (OnnxDiagnosis uses it)
        """Return why it may be slower than `base`, one line per reason; raises RunFailed where a file is refused."""
        return list(self._known)

    def computes_in_int8(self) -> bool:
        """Return whether a layer multiplies int8 by int8, and does not only store its weights as int8."""
        return False

    def time_share(self, selected: Sequence[Operator]) -> str:
        """Return the share of the time that the selected operators take, such as `12% of the time`."""
        total = sum(operator.ns for operator in self.operators)
        return f"{sum(operator.ns for operator in selected) / max(1.0, total):.0%} of the time"


def listed(kinds: Counter[str]) -> str:
    """Return the kinds with their counts, the most frequent first: `Conv (2), Gemm (1)`."""
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
