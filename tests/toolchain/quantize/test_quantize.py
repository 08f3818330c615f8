from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact, save_sidecar
from tests.fixtures.quantized import WAYS, optimized_ops, read
from toolchain.commands.quantize import quantize_file
from toolchain.core.context import RunContext
from toolchain.core.errors import CheckpointError, StageError, UsageProblem
from toolchain.formats.onnx.edit import edited
from toolchain.quantize import quantize
from toolchain.quantize.onnx_weights import expand_at_load
from toolchain.recipe import Quantize

OTHERS: list[tuple[Format, str]] = [("onnx", "static-int4"), ("onnx", "weight-int4"), ("tflite", "dynamic-int4")]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_it_is_a_quarter_of_the_size_and_reads_the_same(
    way: tuple[Format, str],
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    digits_test: Dataset,
) -> None:
    base = floats[way[0]]
    assert base.size / pressed[way].size > 3.55
    before, after = read(base, digits_test.images), read(pressed[way], digits_test.images)
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.985
    # Logits too: clipped ranges leave decisions alone on an easy set, and the confidence wrong.
    assert np.abs(before - after).mean() < 0.02 * np.abs(before).max()


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_the_sidecar_traces_it_to_its_parent_and_its_images(
    way: tuple[Format, str],
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
) -> None:
    facts = json.loads(pressed[way].sidecar.read_text())
    assert facts["parent_sha256"] == floats[way[0]].sha256
    assert facts["recipe"] == way[1]
    assert facts["calibration"] == (None if way[1] == "dynamic-int8" else images.facts())
    assert facts["classes"] == list("0123456789")
    assert load_artifact(pressed[way].path) == pressed[way]


@pytest.mark.parametrize("way", [*WAYS, *OTHERS], ids="-".join)
def test_the_same_inputs_give_the_same_bytes(
    way: tuple[Format, str],
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    tmp_path: Path,
) -> None:
    step = Quantize.model_validate({"scheme": way[1]})
    again = quantize(
        floats[way[0]], step, images if step.calibrated else None, tmp_path / f"again.{way[0]}", recipe=way[1]
    )
    assert again.sha256 == pressed[way].sha256


def test_static_onnx_runs_on_integer_kernels_from_end_to_end(
    pressed: dict[tuple[Format, str], Artifact], tmp_path: Path
) -> None:
    ran = optimized_ops(pressed["onnx", "static-int8"], tmp_path)
    assert ran.count("QLinearConv") == 6
    assert "QGemm" in ran
    assert not {"Conv", "Gemm", "DequantizeLinear"} & set(ran)


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8"])
def test_onnx_kernels_without_vnni_cannot_saturate(
    scheme: str, floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    """They add two products of an activation (0 to 255) and a weight in int16."""
    widest = {}
    for reduced in (True, False):
        step = Quantize.model_validate({"scheme": scheme, "reduce_range": reduced})
        drawn = images if step.calibrated else None
        made = quantize(floats["onnx"], step, drawn, tmp_path / f"{reduced}.onnx", recipe=scheme)
        widest[reduced] = max(np.abs(weights.astype(int)).max() for weights in integer_weights(onnx.load(made.path)))
    assert 2 * 255 * widest[True] <= np.iinfo(np.int16).max < 2 * 255 * widest[False]


def integer_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The int8 matrices that meet uint8 activations: behind a DequantizeLinear, or in a MatMulInteger."""
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    places = {"DequantizeLinear": 0, "MatMulInteger": 1}
    names = [node.input[places[node.op_type]] for node in model.graph.node if node.op_type in places]
    return [constants[name] for name in names if name in constants and constants[name].dtype == np.int8]


def test_dynamic_onnx_pays_for_its_small_weights_only_when_it_is_loaded(
    pressed: dict[tuple[Format, str], Artifact], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    ran = optimized_ops(pressed["onnx", "dynamic-int8"], tmp_path)
    assert not {"ConvInteger", "DequantizeLinear", "Mul", "Cast"} & set(ran)
    assert ran.count("Conv") == optimized_ops(floats["onnx"], tmp_path).count("Conv")


def test_input_and_output_stay_float_unless_integers_are_asked_for(
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    digits_test: Dataset,
    tmp_path: Path,
) -> None:
    for artifact in (pressed[way] for way in WAYS):
        assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}
    step = Quantize(scheme="static-int8", integer_io=True)
    integer = quantize(floats["tflite"], step, images, tmp_path / "integer.tflite", recipe="integer")
    assert [spec.dtype for spec in (*integer.inputs, *integer.outputs)] == ["uint8", "int8"]
    right = read(integer, digits_test.images).argmax(1) == digits_test.labels
    assert right.mean() > 0.9


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_quantized_file_is_not_quantized_again(
    kind: Format, pressed: dict[tuple[Format, str], Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    with pytest.raises((StageError, CheckpointError), match="quantized already"):
        quantize(
            pressed[kind, "static-int8"], Quantize(scheme="static-int8"), images, tmp_path / f"x.{kind}", recipe="x"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_file_is_never_made_over_the_one_it_comes_from(
    kind: Format, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source = tmp_path / f"mine.{kind}"
    source.write_bytes(floats[kind].path.read_bytes())
    save_sidecar(replace(floats[kind], path=source))
    before = source.read_bytes()
    with pytest.raises(UsageProblem, match="the file that it is to be made from; give another name"):
        quantize_file(
            source, Quantize(scheme="dynamic-int8"), tmp_path / "." / source.name, context=RunContext(force=True)
        )
    assert source.read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "profile"])
def test_what_is_found_of_a_file_is_never_written_over_it(
    command: str, glyphpress, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source = tmp_path / "mine.onnx"
    source.write_bytes(floats["onnx"].path.read_bytes())
    save_sidecar(replace(floats["onnx"], path=source))
    data = ("--data", "builtin:digits") if command == "evaluate" else ()
    done = glyphpress(command, source, *data, "--force", "-o", source)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert source.read_bytes() == floats["onnx"].path.read_bytes()


def test_what_cannot_be_is_refused(floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="--data"):
        quantize(floats["onnx"], Quantize(scheme="static-int8"), None, tmp_path / "x.onnx", recipe="x")
    with pytest.raises(StageError, match="no kernels with int16"):
        quantize(floats["onnx"], Quantize(scheme="static-int8-act16"), images, tmp_path / "x.onnx", recipe="x")
    assert list(tmp_path.iterdir()) == []


@given(
    arrays.arrays(np.float32, (4, 2, 3, 3), elements=st.floats(-4, 4, width=32)),
    st.floats(2.0**-10, 2.0**10, width=32),
)
def test_expanded_weights_are_within_half_a_step_of_the_floats(weights: np.ndarray, unit: float) -> None:
    weights = weights * np.float32(unit)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"])],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, 1, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = edited(model, expand_at_load)
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["w_int8"].dtype == np.int8
    expanded = stored["w_int8"].astype(np.float32) * stored["w_scale"]
    assert (np.abs(expanded - weights) <= stored["w_scale"] * 0.5001).all()
