"""Files that take raw pixels: the preprocessing is their first tensor's scale and zero point."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets import catalog
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, torch
from tests.fixtures.quantized import optimized_ops, read
from toolchain.checkpoint.float_model import TorchModel
from toolchain.core.errors import StageError
from toolchain.export import export
from toolchain.formats.uint8_input import PixelInput
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

STEP = Quantize(scheme="static-int8", integer_io=True)
TRAINED = {
    "plain": Preprocess(),
    "a mean between two grey levels": Preprocess(mean=0.1307, std=0.3081),
    "a mean in the middle": Preprocess(mean=0.5, std=0.5),
    "dark ink": Preprocess(invert=True),
    "dark ink, normalized": Preprocess(invert=True, mean=0.1736, std=0.3317),
}


@pytest.fixture(scope="module")
def images(digits: Dataset, digits_test: Dataset) -> CalibrationSet:
    return draw(digits, 48, seed=0, exclude=digits_test)


def fed_raw(artifact: Artifact, pixels: np.ndarray) -> np.ndarray:
    """Return the classes that the runtime itself gives for uint8 [N, 28, 28]."""
    if artifact.format == "onnx":
        session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: pixels[:, None]})[0].argmax(1)
    interpreter = Interpreter(str(artifact.path), num_threads=1)
    interpreter.allocate_tensors()
    classes = []
    for image in pixels:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None, None])
        interpreter.invoke()
        classes.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax())
    return np.array(classes)


def test_row37_the_sidecar_says_what_the_caller_must_still_do(
    floats: dict[Format, Artifact], images: CalibrationSet, digits_test: Dataset, tmp_path: Path
) -> None:
    trained = Preprocess(orientation="transpose", mean=0.1307, std=0.3081, label_offset=0)
    source = replace(floats["onnx"], preprocess=trained)
    turned = replace(images, images=np.ascontiguousarray(images.images.swapaxes(1, 2)))
    quantized = quantize(source, STEP, turned, tmp_path / "pixels.onnx", recipe="x")
    inside = ["divide by 255", "subtract 0.1307", "divide by 0.3081"]
    turn = "transpose: rows become columns"
    duties = json.loads(quantized.sidecar.read_text())["duties"]
    assert duties["file"] == inside
    assert duties["caller"][1:] == [turn, "give the pixels, 0 to 255, as uint8 [N, 1, 28, 28] to image"]
    told = source.facts()["duties"]
    assert told["caller"][1:] == [turn, *inside, "give them as float32 [N, 1, 28, 28] to image"]
    assert told["file"] == []
    assert load_artifact(quantized.path) == quantized
    # A caller who follows the list, and does no more, gets the same classes.
    test = digits_test.images[:100]
    assert (fed_raw(quantized, test.swapaxes(1, 2).copy()) == read(quantized, test).argmax(1)).all()


@pytest.mark.parametrize(
    ("kind", "name"), [("onnx", name) for name in TRAINED] + [("tflite", name) for name in list(TRAINED)[::2]]
)
def test_raw_pixels_are_read_as_preprocessed_ones_are_by_the_float_file(
    kind: Format,
    name: str,
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    digits_test: Dataset,
    tmp_path: Path,
) -> None:
    trained = TRAINED[name]
    source = replace(floats[kind], preprocess=trained)
    # The model was trained on light ink, which an inversion makes of dark ink.
    sample = (images.images, digits_test.images[:200])
    calibration, test = (255 - pixels if trained.invert else pixels for pixels in sample)
    quantized = quantize(source, STEP, replace(images, images=calibration), tmp_path / f"pixels.{kind}", recipe="x")
    assert quantized.inputs[0].dtype == "uint8"
    assert quantized.outputs[0].dtype in ("uint8", "int8")
    before, after = read(source, test), read(quantized, test)
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.97
    assert np.abs(before - after).mean() < 0.03 * np.ptp(before)
    assert np.array_equal(fed_raw(quantized, test), after.argmax(1))
    assert load_artifact(quantized.path).preprocess == replace(trained, dtype="uint8")


def test_the_turn_stays_outside_and_is_what_the_sidecar_tells(
    floats: dict[Format, Artifact], images: CalibrationSet, digits_test: Dataset, tmp_path: Path
) -> None:
    turned = Preprocess(orientation="transpose", mean=0.1307, std=0.3081)
    source = replace(floats["onnx"], preprocess=turned)
    quantized = quantize(source, STEP, images, tmp_path / "turned.onnx", recipe="x")
    test = digits_test.images[:100]
    assert (read(quantized, test).argmax(1) == read(source, test).argmax(1)).mean() > 0.95
    assert np.array_equal(fed_raw(quantized, test.swapaxes(1, 2)), read(quantized, test).argmax(1))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_model_that_flattens_first_takes_raw_pixels(
    kind: Format, images: CalibrationSet, digits_test: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = TorchModel("mlp", Preprocess(), digits_test.classes, "0" * 64, blocks.Perceptron().eval())
    source = export(model, kind, tmp_path / f"float.{kind}")
    quantized = quantize(source, STEP, images, tmp_path / f"pixels.{kind}", recipe="x")
    assert quantized.inputs[0].dtype == "uint8"
    with catalog.default_for(kind).open(source) as whole, catalog.default_for(kind).open(quantized) as session:
        expected, logits = (opened.run(digits_test.images[:100]) for opened in (whole, session))
    assert np.abs(logits - expected).max() < 0.05 * np.ptp(expected)


def test_pixels_cost_nothing_in_onnx(
    floats: dict[Format, Artifact], images: CalibrationSet, digits_test: Dataset, tmp_path: Path
) -> None:
    plain, pixels = (
        quantize(floats["onnx"], step, images, tmp_path / f"{name}.onnx", recipe="x")
        for name, step in (("plain", Quantize(scheme="static-int8")), ("pixels", STEP))
    )
    nodes = [sorted(optimized_ops(artifact, tmp_path)) for artifact in (plain, pixels)]
    assert nodes[0] == sorted([*nodes[1], "QuantizeLinear"])
    # Everything before the logits is the same to the bit: only the rounding of the logits differs.
    with catalog.default_for("onnx").open(pixels) as session:
        step = session.sink.scale
        assert np.abs(session.run(digits_test.images) - read(plain, digits_test.images)).min(1).max() <= step


@given(
    st.builds(
        Preprocess,
        scale=st.sampled_from(["0-1", "0-255"]),
        mean=st.floats(0, 1),
        std=st.floats(0.01, 10),
        invert=st.booleans(),
    )
)
def test_sign_scale_zero_point_and_shift_are_the_preprocessing(preprocess: Preprocess) -> None:
    pixels = PixelInput.of(preprocess)
    ramp = np.arange(784).astype(np.uint8).reshape(1, 28, 28)
    expected = preprocess.apply(ramp)
    assert abs(pixels.shift) <= pixels.scale / 2
    np.testing.assert_allclose(pixels.sign * pixels.values(ramp) + pixels.shift, expected, atol=1e-4 / preprocess.std)


def test_a_mean_that_is_no_pixel_is_refused(
    floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    source = replace(floats["onnx"], preprocess=Preprocess(mean=-0.5))
    with pytest.raises(StageError, match="outside of what pixels can be"):
        quantize(source, STEP, images, tmp_path / "x.onnx", recipe="x")
    assert list(tmp_path.iterdir()) == []


def test_a_first_layer_that_cannot_take_in_a_mean_is_named(
    floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    proto = onnx.load(floats["onnx"].path)
    name = proto.graph.input[0].name
    for node in proto.graph.node:
        node.input[:] = ["rooted" if tensor == name else tensor for tensor in node.input]
    proto.graph.node.insert(0, onnx.helper.make_node("Abs", [name], ["rooted"]))
    path = tmp_path / "rooted.onnx"
    onnx.save(proto, path)
    source = replace(floats["onnx"], path=path, preprocess=Preprocess(mean=0.1307))
    with pytest.raises(StageError, match="goes to Abs"):
        quantize(source, STEP, images, tmp_path / "x.onnx", recipe="x")
