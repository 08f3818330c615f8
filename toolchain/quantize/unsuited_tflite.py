"""Operators of a TFLite file that integers do not suit, however their ranges are chosen.

A divisor or a variance that rounds to zero is infinite behind it, and LiteRT's integer DIV stops the run there. So the
statistics that a norm divides by are computed in float, and what they scale as well, until it is normal. A range that
holds a mask of minus infinity has room for nothing else, so that from there to its softmax is float too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

STATISTICS = ("ABS", "MAXIMUM", "MEAN", "POW", "RESHAPE", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM")
"""Operators that what is divided by is computed with; ADD and MUL count too where they take one computed tensor."""
MASKS = ("ADD", "MINIMUM", "SELECT", "SELECT_V2", "SUB")
"""Operators by which a mask takes values out of a softmax."""
MASKED = -1e3
"""A constant of this or less in front of a softmax is a mask: its exp is nothing, beside whatever value."""
VIEWS = ("BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE")
ROOTS = ("RSQRT", "SQRT")


def unsuited(model: Any, *, wide: bool) -> Iterator[Any]:
    """Yield the operators of the first subgraph that must stay float.

    wide: activations have 16 bits, so that a constant matrix, of 8, cannot be the first factor of a product.
    """
    graph, kinds, made_by = _graph(model)

    def computed(at: int) -> set[int]:
        return {int(tensor) for tensor in graph.operators[at].inputs if int(tensor) in {*made_by, *graph.inputs}}

    def behind(tensor: int) -> set[int]:
        seen, ahead = set[int](), [tensor]
        while ahead:
            at = made_by.get(ahead.pop())
            if at is None or at in seen:
                continue
            if kinds[at] in STATISTICS or (kinds[at] in ("ADD", "MUL") and len(computed(at)) == 1):
                seen.add(at)
                ahead += computed(at)
        return seen

    chosen = {at for softmax, chain in masked(model) for at in (softmax, *chain)}
    scaled: set[int] = set()
    for at, (kind, node) in enumerate(zip(kinds, graph.operators, strict=True)):
        if kind in (*ROOTS, "DIV"):
            chosen |= {at, *behind(int(node.inputs[-1]))}
        follows = kind in ("MUL", "RESHAPE") and computed(at) & scaled
        if kind in ROOTS or follows or (kind in ("ADD", "SUB") and computed(at) and computed(at) <= scaled):
            chosen.add(at)
            scaled |= {int(tensor) for tensor in node.outputs}
        if wide and kind == "BATCH_MATMUL" and int(node.inputs[0]) not in {*made_by, *graph.inputs}:
            chosen.add(at)
    yield from (graph.operators[at] for at in sorted(chosen))


def masked(model: Any) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the place of each softmax that is masked, and those of the operators from its masks to it."""
    graph, kinds, _ = _graph(model)
    chains: dict[int, frozenset[int]] = {}
    for at, (kind, node) in enumerate(zip(kinds, graph.operators, strict=True)):
        inputs = [int(index) for index in node.inputs]
        if kind == "SOFTMAX" and (chain := chains.get(inputs[0])):
            yield at, chain
        elif kind in (*VIEWS, *MASKS):
            before = frozenset[int]().union(*(chains.get(index, ()) for index in inputs))
            hides = kind in MASKS and _least(model, graph, inputs) <= MASKED
            if before or hides:
                chains |= dict.fromkeys(map(int, node.outputs), before | {at})


def _least(model: Any, graph: Any, tensors: Any) -> float:
    """Return the least number of the constants among tensors."""
    from ai_edge_litert.schema_py_generated import TensorType

    constants = (graph.tensors[int(index)] for index in tensors if index >= 0)
    stored = (model.buffers[one.buffer].data for one in constants if one.type == TensorType.FLOAT32)
    return min((np.frombuffer(bytes(data), "<f4").min(initial=0) for data in stored if data is not None), default=0)


def _graph(model: Any) -> tuple[Any, list[str], dict[int, int]]:
    """Return the first subgraph, the names of its operators, and which of them makes a tensor."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    words = {number: word for word, number in vars(BuiltinOperator).items() if isinstance(number, int)}
    graph = model.subgraphs[0]
    kinds = [words[model.operatorCodes[node.opcodeIndex].builtinCode] for node in graph.operators]
    return graph, kinds, {int(tensor): at for at, node in enumerate(graph.operators) for tensor in node.outputs}
