"""Whether int8 pays somewhere: measured by small models that the press's own stages make."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from calibration.dataset import load
from targets import catalog
from targets.artifact import Format
from targets.errors import UnknownTarget
from tests.targets.test_arm64 import emulated
from toolchain.errors import UsageProblem
from toolchain.int8_probe import probe_int8
from toolchain.probe_models import Shape, probe_model, probe_pair


@pytest.mark.parametrize("word", ["16x32x3@14x14", "1x8x5@28x28", "576x47"])
def test_a_shape_is_read_as_it_is_written(word: str) -> None:
    assert str(Shape.parse(word)) == word


@pytest.mark.parametrize("word", ["", "16", "16x32x3", "0x4", "16x32x3@14x29", "16x32x3@14", "axb", "9999x2"])
def test_what_is_no_shape_is_refused(word: str) -> None:
    with pytest.raises(UsageProblem, match="give INxOUT"):
        Shape.parse(word)


@pytest.mark.slow
def test_it_tells_the_ratio_of_every_shape_with_its_interval() -> None:
    found = probe_int8("ort-cpu", ["32x32x3@14x14", "256x256"])
    assert [(one.format, one.shape) for one in found.ratios] == [("onnx", "32x32x3@14x14"), ("onnx", "256x256")]
    for one in found.ratios:
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.ratio <= one.high
    assert found.overall()["onnx"] == pytest.approx((found.ratios[0].ratio * found.ratios[1].ratio) ** 0.5)
    (line,) = found.advice()
    assert ("quantize" in line) == (found.overall()["onnx"] < 0.95)


@pytest.mark.parametrize("word", ["4x8x2@28x20", "3x5x3@9x7", "24x40"])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_small_model_repeats_the_layer_and_int8_answers_as_float(word: str, kind: Format) -> None:
    pair = probe_pair(word, kind, 3)
    images = load("builtin:digits", "test").images[:100]
    answers = []
    for file in pair:
        with catalog.default_for(kind).open(file) as session:
            answers.append(session.run(images))
    meant, quantized = answers
    assert np.ptp(meant) > 0
    assert np.abs(quantized - meant).max() < 0.1 * np.ptp(meant)
    assert probe_pair(word, kind, 3) == pair, "it is kept"
    weights = {tuple(one.dims) for one in probe_model(Shape.parse(word), 3).graph.initializer}
    shape = Shape.parse(word)
    window = (shape.kernel, shape.kernel) if shape.kernel else ()
    assert {(shape.outputs, shape.inputs, *window), (shape.inputs, shape.outputs, *window)} <= weights


@pytest.mark.slow
def test_int8_helps_more_where_bytes_are_multiplied_at_once() -> None:
    emulated("cortex-a72")
    ratios = {cpu: probe_int8(f"arm64:{cpu}", ["64x64x3@7x7"]).overall() for cpu in ("cortex-a72", "cortex-a76")}
    for kind in ("onnx", "tflite"):
        assert ratios["cortex-a76"][kind] < ratios["cortex-a72"][kind]


def test_places_without_a_cost_or_a_name_are_refused() -> None:
    with pytest.raises(UsageProblem, match="null is simulated and tells no cost"):
        probe_int8("null", ["8x8"])
    with pytest.raises(UnknownTarget):
        probe_int8("ort-cpuu")


def test_the_command_prints_one_object(glyphpress: Callable[..., Any]) -> None:
    done = glyphpress("probe-int8", "--target", "ort-cpu", "64x64", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["schema"], said["ratios"][0]["shape"]) == ("glyphpress/probe-int8/1", "64x64")
    refused = glyphpress("probe-int8", "8by8")
    assert (refused.code, refused.out) == (2, "")
