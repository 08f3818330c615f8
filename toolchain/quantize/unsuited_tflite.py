"""Find the operators of a TFLite file that must stay in float, however their ranges are chosen.

A divisor or a variance that rounds to zero gives infinity, and LiteRT's integer DIV stops the run. So the statistics
that a norm divides by are computed in float, and so is what they scale, until its values are normalised. A range that
includes a mask of minus infinity has no precision for anything else, so everything from the mask to its softmax is in
float too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

STATISTICS = ("ABS", "MAXIMUM", "MEAN", "POW", "RESHAPE", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM")
"""Operators that compute a divisor; ADD and MUL count too where they have one computed input."""
MASKS = ("ADD", "MINIMUM", "SELECT", "SELECT_V2", "SUB")
"""Operators by which a mask excludes values from a softmax."""
MASKED = -1e3
"""A constant of this or less before a softmax is a mask: its exp is negligible beside that of any value."""
VIEWS = ("BROADCAST_TO", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE")
ROOTS = ("RSQRT", "SQRT")


def unsuited(model: Any, *, wide: bool) -> Iterator[Any]:
    """Yield the operators of the first subgraph that must stay in float.

    wide: activations have 16 bits, so a constant matrix, of 8 bits, cannot be the first factor of a product.
    """
    graph, kinds, made_by = _graph(model)

    def computed(at: int) -> set[int]:
        return {int(tensor) for tensor in graph.operators[at].inputs if int(tensor) in {*made_by, *graph.inputs}}

    def statistics_of(tensor: int) -> set[int]:
        operators, pending = set[int](), [tensor]
        while pending:
            at = made_by.get(pending.pop())
            if at is None or at in operators:
                continue
            if kinds[at] in STATISTICS or (kinds[at] in ("ADD", "MUL") and len(computed(at)) == 1):
                operators.add(at)
                pending += computed(at)
        return operators

    chosen = {at for softmax, chain in masked(model) for at in (softmax, *chain)}
    scaled: set[int] = set()
    for at, (kind, node) in enumerate(zip(kinds, graph.operators, strict=True)):
        if kind in (*ROOTS, "DIV"):
            chosen |= {at, *statistics_of(int(node.inputs[-1]))}
        follows = kind in ("MUL", "RESHAPE") and computed(at) & scaled
        if kind in ROOTS or follows or (kind in ("ADD", "SUB") and computed(at) and computed(at) <= scaled):
            chosen.add(at)
            scaled |= {int(tensor) for tensor in node.outputs}
        if wide and kind == "BATCH_MATMUL" and int(node.inputs[0]) not in {*made_by, *graph.inputs}:
            chosen.add(at)
    yield from (graph.operators[at] for at in sorted(chosen))


def masked(model: Any) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield the index of each masked softmax, and the indices of the operators between its masks and it."""
    graph, kinds, _ = _graph(model)
    chains: dict[int, frozenset[int]] = {}
    for at, (kind, node) in enumerate(zip(kinds, graph.operators, strict=True)):
        inputs = [int(index) for index in node.inputs]
        if kind == "SOFTMAX" and (chain := chains.get(inputs[0])):
            yield at, chain
        elif kind in (*VIEWS, *MASKS):
            before = frozenset[int]().union(*(chains.get(index, ()) for index in inputs))
            adds_mask = kind in MASKS and _smallest_constant(model, graph, inputs) <= MASKED
            if before or adds_mask:
                chains |= dict.fromkeys(map(int, node.outputs), before | {at})


def _smallest_constant(model: Any, graph: Any, tensors: Any) -> float:
    """Return the smallest value of the float constants among `tensors`; 0 without any negative one."""
    from ai_edge_litert.schema_py_generated import TensorType

    constants = (graph.tensors[int(index)] for index in tensors if index >= 0)
    stored = (model.buffers[tensor.buffer].data for tensor in constants if tensor.type == TensorType.FLOAT32)
    return min((np.frombuffer(bytes(data), "<f4").min(initial=0) for data in stored if data is not None), default=0)


def _graph(model: Any) -> tuple[Any, list[str], dict[int, int]]:
    """Return the first subgraph, the kinds of its operators, and tensor -> index of the operator that makes it."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names = {number: name for name, number in vars(BuiltinOperator).items() if isinstance(number, int)}
    graph = model.subgraphs[0]
    kinds = [names[model.operatorCodes[node.opcodeIndex].builtinCode] for node in graph.operators]
    return graph, kinds, {int(tensor): at for at, node in enumerate(graph.operators) for tensor in node.outputs}
