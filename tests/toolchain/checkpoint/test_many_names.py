"""Checkpoints and graphs with very many names are read in seconds, however the names are nested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import process_time
from types import SimpleNamespace

import pytest

from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint.computed_weights import computed
from toolchain.checkpoint.state import find_state, fit_state
from toolchain.quantize.tflite_graph import masked, unsuited

COUNT = 20_000


def _flat() -> int:
    tensors = {f"layers.{number}.weight": torch.zeros(1) for number in range(COUNT)}
    return len(find_state(tensors, "net.pt", None).tensors)


def _nested() -> int:
    tensors = {f"layers.{number}": {"weight": torch.zeros(1)} for number in range(COUNT)}
    return len(find_state(tensors, "net.pt", None).tensors) * COUNT


def _one_of_many() -> int:
    tensors = {f"layers.{number}.weight": torch.ones(1, 1) for number in range(COUNT)}
    fitted = fit_state(nn.Linear(1, 1, bias=False), tensors, "net.pt")
    assert "--weights layers.1 (or layers.2" in fitted.notes[0]
    return len(fitted.tensors) * COUNT


def _parametrized() -> int:
    parts = ("original0", "original1")
    names = [f"{number}.parametrizations.weight.{part}" for number in range(COUNT) for part in parts]
    return len(computed(dict.fromkeys(names, torch.zeros(1))))


# They took minutes when the time grew with the square of the number of names.
@pytest.mark.parametrize("read", [_flat, _nested, _one_of_many, _parametrized])
def test_20000_tensors_are_read_in_seconds(read: Callable[[], int]) -> None:
    before = process_time()
    assert read() == COUNT
    assert process_time() - before < 5


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
        for at in range(0, 3000, 3):
            yield "ABS", [at], at + 1
            yield "SQUARE", [at], at + 2
            yield "SUB", [at + 1, at + 2], at + 3
        yield "DIV", [0, 3000], 3001

    assert len(list(unsuited(_model(branches()), wide=False))) == 3001


def test_a_softmax_behind_a_long_chain_is_found_without_recursion() -> None:
    def chain() -> Iterator[tuple[str, list[int], int]]:
        for at in range(3000):
            yield "RESHAPE", [at], at + 1
        yield "SOFTMAX", [3000], 3001

    assert list(masked(_model(chain()))) == []
