"""Masks of minus infinity, and pads, in ONNX: every scheme takes them, and they cost no more than rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from tests.toolchain.test_tflite_forms import formed
from toolchain.checkpoint.onnx_files import refuse_not_finite
from toolchain.errors import CheckpointError
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.quantize.step import Quantize

LEAST_DB = {"static-int8": 33.0, "static-int4": 18.0, "weight-int8": 40.0, "dynamic-int8": 35.0}
"""What each scheme left here, less 4 dB; where a range spans the mask it is 10 dB at most."""
FORMS = ("mask-added", "mask-least", "mask-filled", "mask-1e4", "mask-causal", "mask-of-bools", "pad-of-nothing")


@pytest.fixture(scope="module")
def images(digits: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0)


@pytest.mark.parametrize("name", [pytest.param(name, id=f"row13-{name}") for name in FORMS])
def test_every_scheme_takes_it(name: str, images: CalibrationSet, tmp_path: Path) -> None:
    exact = export(formed(name), "onnx", tmp_path / "float.onnx")
    kept = {}
    for scheme in LEAST_DB:
        made = quantize(exact, Quantize(scheme=scheme), images, tmp_path / f"{scheme}.onnx", recipe="x")
        assert made.fidelity is not None
        assert made.fidelity.sqnr_db is not None
        kept[scheme] = made.fidelity.sqnr_db
    assert all(kept[scheme] > least for scheme, least in LEAST_DB.items()), kept


@pytest.mark.parametrize(("tensor", "value"), [("mask", np.nan), ("mask", np.inf), ("weights", -np.inf)])
def test_row13_other_values_that_are_not_finite_are_refused(tensor: str, value: float) -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["image", "weights"], ["scores"]),
        onnx.helper.make_node("Add", ["scores", "mask"], ["masked"]),
        onnx.helper.make_node("Softmax", ["masked"], ["logits"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4, 4]) for name in ("image", "logits")]
    constants = {name: np.zeros((4, 4), np.float32) for name in ("weights", "mask")}
    constants["mask"][0, 1] = -np.inf
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = onnx.helper.make_graph(nodes, "attention", ends[:1], ends[1:], stored)
    refuse_not_finite(onnx.helper.make_model(graph), Path("masked.onnx"))
    constants[tensor][0, 0] = value
    graph.initializer.append(numpy_helper.from_array(constants[tensor], tensor))
    del graph.initializer[[one.name for one in graph.initializer].index(tensor)]
    with pytest.raises(CheckpointError, match=rf"weights are not finite \({tensor}\)"):
        refuse_not_finite(onnx.helper.make_model(graph), Path("masked.onnx"))
