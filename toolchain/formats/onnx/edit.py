"""Small edits of an ONNX graph, each of which leaves it valid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def rename(graph: GraphProto, old: str, new: str) -> None:
    """Rename a value wherever it is made, used or declared, subgraphs included; `new` must be free."""
    for node in graph.node:
        _replace(node.input, old, new)
        _replace(node.output, old, new)
        for inner in subgraphs(node):
            rename(inner, old, new)
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if named.name == old:
            named.name = new


def make_free(graph: GraphProto, name: str) -> None:
    """Rename whatever bears `name`, so that it can be given to something else."""
    if name in value_names(graph):
        rename(graph, name, f"{name}_inner")


def value_names(graph: GraphProto) -> set[str]:
    """Return the name of every value of a graph, subgraphs included."""
    names = {named.name for named in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names |= {*node.input, *node.output}
        for inner in subgraphs(node):
            names |= value_names(inner)
    return names


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node holds (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def producer(graph: GraphProto, value: str) -> NodeProto | None:
    """Return the node that makes a value, None for an input or initializer."""
    return next((node for node in graph.node if value in node.output), None)


def consumers(graph: GraphProto, value: str) -> list[NodeProto]:
    """Return the nodes that use a value, directly or in a subgraph."""
    return [node for node in graph.node if value in _needs(node)]


def constant(graph: GraphProto, value: str) -> NDArray[np.generic] | None:
    """Return the array of an initializer or Constant node, None when the value is computed."""
    from onnx import numpy_helper

    for initializer in graph.initializer:
        if initializer.name == value:
            return numpy_helper.to_array(initializer)
    node = producer(graph, value)
    if node is None or node.op_type != "Constant":
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    return np.array(attribute.ints) if attribute.name == "value_ints" else None


def set_input_constant(graph: GraphProto, node: NodeProto, position: int, values: Iterable[int]) -> None:
    """Give a node a constant int64 vector as an input of its own, so that other users keep theirs."""
    from onnx import numpy_helper

    name = f"{node.output[0]}_{position}_constant"
    make_free(graph, name)
    graph.initializer.append(numpy_helper.from_array(np.array(list(values), dtype=np.int64), name))
    node.input[position] = name


def drop_unused(graph: GraphProto) -> None:
    """Remove the nodes, initializers and shape notes that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= _needs(node)
    # Copies, since clearing the repeated field frees what it held.
    copies = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(copies)
    for field in (graph.initializer, graph.input):
        unused = [item for item in field if item.name not in needed]
        for item in unused:
            field.remove(item)
    del graph.value_info[:]


def _needs(node: NodeProto) -> set[str]:
    needed = set(node.input)
    for inner in subgraphs(node):
        needed |= value_names(inner)
    return needed - {""}


def _replace(names: object, old: str, new: str) -> None:
    for position, name in enumerate(names):  # type: ignore[arg-type, var-annotated]  # protobuf's repeated field
        if name == old:
            names[position] = new  # type: ignore[index]  # as above
