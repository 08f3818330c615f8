"""Large TFLite graphs are searched for operators that must stay in float in one pass, without recursion."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

from toolchain.quantize.tflite_graph import masked, unsuited


def _model(nodes: Iterator[tuple[str, list[int], int]]) -> SimpleNamespace:
    """Return a TFLite model of operators, each its kind, inputs and output; tensor 0 is the input."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    kinds: dict[str, int] = {}
    operators = [
        SimpleNamespace(opcodeIndex=kinds.setdefault(kind, len(kinds)), inputs=inputs, outputs=[output])
        for kind, inputs, output in nodes
    ]
    codes = [SimpleNamespace(builtinCode=getattr(BuiltinOperator, kind), deprecatedBuiltinCode=0) for kind in kinds]
    tensors = [SimpleNamespace(type=None)] * (len(operators) + 1)
    graph = SimpleNamespace(operators=operators, inputs=[0], tensors=tensors)
    return SimpleNamespace(operatorCodes=codes, subgraphs=[graph])


def test_a_divisor_of_many_branches_is_walked_once() -> None:
    def branches() -> Iterator[tuple[str, list[int], int]]:
        for tensor in range(0, 3000, 3):
            yield "ABS", [tensor], tensor + 1
            yield "SQUARE", [tensor], tensor + 2
            yield "SUB", [tensor + 1, tensor + 2], tensor + 3
        yield "DIV", [0, 3000], 3001

    assert len(list(unsuited(_model(branches()), wide=False))) == 3001


def test_a_softmax_behind_a_long_chain_is_found_without_recursion() -> None:
    def chain() -> Iterator[tuple[str, list[int], int]]:
        for tensor in range(3000):
            yield "RESHAPE", [tensor], tensor + 1
        yield "SOFTMAX", [3000], 3001

    assert list(masked(_model(chain()))) == []
