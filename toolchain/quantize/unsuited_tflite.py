"""Operators of a TFLite file that integers do not suit, however their ranges are chosen.

A divisor or a variance that rounds to zero is infinite behind it, and LiteRT's integer DIV stops the run there. So the
statistics that a norm divides by are computed in float, and what they scale as well, until it is normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

STATISTICS = ("ABS", "MAXIMUM", "MEAN", "POW", "RESHAPE", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM")
"""Operators that what is divided by is computed with; ADD and MUL count too where they take one computed tensor."""
ROOTS = ("RSQRT", "SQRT")


def unsuited(model: Any, *, wide: bool) -> Iterator[Any]:
    """Yield the operators of the first subgraph that must stay float.

    wide: activations have 16 bits, so that a constant matrix, of 8, cannot be the first factor of a product.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    words = {number: word for word, number in vars(BuiltinOperator).items() if isinstance(number, int)}
    graph = model.subgraphs[0]
    kinds = [words[model.operatorCodes[node.opcodeIndex].builtinCode] for node in graph.operators]
    made_by = {int(tensor): at for at, node in enumerate(graph.operators) for tensor in node.outputs}

    def computed(at: int) -> set[int]:
        return {int(tensor) for tensor in graph.operators[at].inputs if int(tensor) in {*made_by, *graph.inputs}}

    def behind(tensor: int) -> Iterator[int]:
        at = made_by.get(tensor)
        if at is not None and (kinds[at] in STATISTICS or (kinds[at] in ("ADD", "MUL") and len(computed(at)) == 1)):
            yield at
            for one in computed(at):
                yield from behind(one)

    chosen: set[int] = set()
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
