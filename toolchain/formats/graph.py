"""Graph: the operators of an exported file, and which of them are layers, whatever the format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from targets.errors import nearest
from targets.host.runtime_session import TensorCodec
from targets.host.text import argument
from toolchain.core.errors import UsageProblem


@dataclass(frozen=True)
class Node:
    """An operator; tensors are named as the format's reader names them, empty where an input is left out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor that the file holds, or makes of one: its name there, its type, how many numbers, what is done to it."""

    name: str
    dtype: str
    size: int
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """An operator with weights.

    name: of its weights, as a profile names layers. node: its place in the file. chain: what it writes, and what
    operators that only serve it make of that: activation, quantization, dequantization; the last is its result.
    copies: other tensors of the same values.
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

    weighted: kind of operator -> which input holds its weights. followed: kinds that belong to the layer before them.
    ports: how the integers of a quantized tensor stand for numbers; a dequantized tensor has those that it came from.
    layer_names: tensor of weights -> the layer's name.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Constant]
    ports: dict[str, TensorCodec]
    weighted: dict[str, int]
    followed: frozenset[str]
    layer_names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The operators that read each tensor."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(filter(None, node.inputs)):
                found[name].append(node)
        return found

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The operator that writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The operators with weights, in the order of execution; of two of one name the later gets a number."""
        seen: Counter[str] = Counter()
        found = []
        for number, node in enumerate(self.nodes):
            weights = self._weights(node)
            if weights is None:
                continue
            name = self.layer_names.get(weights.name) or weights.name
            seen[name] += 1
            unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
            found.append(Layer(unique, node.kind, number, weights, *self._chain(node)))
        return tuple(found)

    def _weights(self, node: Node) -> Constant | None:
        place = self.weighted.get(node.kind)
        if place is None or len(node.inputs) <= place or node.outputs[0] in self.constants:
            return None
        return self.constants.get(node.inputs[place])

    def _chain(self, node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the tensors of a chain in which every operator only serves the layer, and copies of the last."""
        chain, copies = [node.outputs[0]], tuple[str, ...]()
        while chain[-1] not in self.outputs and not copies:
            after = self.consumers[chain[-1]]
            copied = all(one.kind == "DequantizeLinear" for one in after)
            if not after or (len(after) > 1 and not copied) or not self._serves(after[0], chain[-1], node.kind):
                break
            chain.append(after[0].outputs[0])
            copies = tuple(one.outputs[0] for one in after[1:])
        return tuple(chain), copies

    def _serves(self, node: Node, tensor: str, kind: str) -> bool:
        """Return whether an operator is a layer's activation, bias or scale, and not an operator of its own."""
        others = [name for name in node.inputs if name and name != tensor]
        if node.kind.upper() in ("ADD", "MUL"):
            scaled = kind.endswith("Integer") and node.kind == "Mul"
            return scaled or (bool(others) and all(name in self.constants for name in others))
        return node.kind in self.followed


NOT_FLOAT = ""
"""Kind under which weights of other types than float32 are counted."""


class FloatParts(Protocol):
    """What of a quantized file is still float."""

    def operators(self) -> set[str]:
        """Return the kinds of operators of a statically quantized file that compute in float.

        Conversions at its inputs and outputs do not count.
        """

    def weights(self) -> Counter[str]:
        """Return how many float32 weights operators of each kind read, and under NOT_FLOAT how many have other types.

        A weight is a constant of which `is_matrix` is true; one that nothing reads counts under `nothing`.
        """


def is_matrix(shape: Iterable[int]) -> bool:
    """Return whether a constant has two or more axes longer than 1; biases, scales and shapes have one."""
    return sum(size > 1 for size in shape) > 1


def chosen(graph: Graph, names: Collection[str], file: str) -> tuple[Layer, ...]:
    """Return the layers of these names, in the order of execution.

    Raises UsageProblem for a name that the file has not, with the nearest ones, and where they are all of its layers.
    """
    known = [layer.name for layer in graph.layers]
    for name in names:
        if name not in known:
            near = nearest(name, known, f"`glyphpress inspect {argument(file)}` lists them")
            raise UsageProblem(f"{file} has no layer '{name}' to keep float; {near}")
    found = tuple(layer for layer in graph.layers if layer.name in names)
    if found and len(found) == len(known):
        raise UsageProblem(f"{file}: every layer is to be kept float, so there is nothing to quantize; keep fewer")
    return found
