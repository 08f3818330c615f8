"""An .onnx file whose operators ask for gigabytes is refused before a runtime opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import Finished
from tests.fixtures.small_readers import described, linear_reader

Node = tuple[str, list[str], dict[str, Any]]
SIDE = 30_000
SHAPE = {"s": [SIDE, SIDE]}
CASES: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "ConstantOfShape": ([("ConstantOfShape", ["s"], {})], SHAPE),
    "Expand": ([("Expand", ["flat", "s"], {})], {"s": [1_000_000, 784]}),
    "Tile": ([("Tile", ["flat", "s"], {})], {"s": [SIDE, 30]}),
    "Pad": ([("Pad", ["flat", "s"], {})], {"s": [0, 0, SIDE, SIDE]}),
    "Resize": ([("Resize", ["image", "", "", "s"], {})], {"s": [1, 1, SIDE, SIDE]}),
    "Range": ([("Range", ["start", "end", "step"], {})], {"start": 0, "end": 10**9, "step": 1}),
    "OneHot": ([("OneHot", ["a", "d", "v"], {})], {"a": [1] * 900, "d": 10**6, "v": [0, 1]}),
    "NonZero of ConstantOfShape": ([("ConstantOfShape", ["s"], {}), ("NonZero", ["made0"], {})], SHAPE),
    "ConstantOfShape of a product": (
        [("Mul", ["s", "s"], {}), ("ConstantOfShape", ["made0"], {})],
        {"s": [40, 1000]},
    ),
}


def asking(path: Path, nodes: list[Node], constants: dict[str, Any]) -> Path:
    """Write a reader of digits with more operators, whose answer goes out beside the logits."""
    model = onnx.load(linear_reader(path))
    graph = model.graph
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in constants.items()
    )
    for number, (kind, inputs, settings) in enumerate(nodes):
        graph.node.append(helper.make_node(kind, inputs, [f"made{number}"], name=f"my{kind}", **settings))
    graph.output.append(helper.make_tensor_value_info(f"made{len(nodes) - 1}", TensorProto.FLOAT, None))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("command", ["evaluate", "export"])
@pytest.mark.parametrize("name", [pytest.param(name, id=f"row33-{name}") for name in CASES])
def test_operators_that_ask_for_gigabytes_are_refused(
    name: str, command: str, tmp_path: Path, glyphpress: Callable[..., Finished]
) -> None:
    path = asking(tmp_path / "huge.onnx", *CASES[name])
    arguments = {
        "evaluate": ["--data", "builtin:digits"],
        "export": ["--classes", "0123456789", "--scale", "0-1", "-o", tmp_path / "made.onnx"],
    }
    done = glyphpress(command, path, *arguments[command])
    assert done.code == 3
    assert "its operators ask for " in done.err
    assert f" are those of {name.split()[-1 if name.startswith('NonZero') else 0]} 'my" in done.err
    assert done.err.count("\n") == 1


def test_row33_shapes_that_stay_small_are_no_reason_to_refuse(
    tmp_path: Path, glyphpress: Callable[..., Finished]
) -> None:
    path = asking(tmp_path / "fair.onnx", [("Tile", ["flat", "s"], {})], {"s": [1, 30]})
    described(path)
    assert glyphpress("evaluate", path, "--data", "builtin:digits").code == 0
