"""Whether int8 pays somewhere: measured by small models that the press's own stages make."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from calibration.sample import draw
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import UnknownTarget
from targets.session import RuntimeFacts
from tests.fixtures.emulated import emulated
from toolchain.commands.probe_int8 import Int8Probe, Ratio, Shape, probe_int8, probe_model, probe_pair, shapes_of
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.quantize import quantize
from toolchain.recipe import Quantize


@pytest.mark.parametrize("word", ["16x32x3@14x14", "1x8x5@28x28", "576x47"])
def test_a_shape_is_read_as_it_is_written(word: str) -> None:
    assert str(Shape.parse(word)) == word


@pytest.mark.parametrize("word", ["", "16", "16x32x3", "0x4", "16x32x3@14x29", "16x32x3@14", "axb", "9999x2"])
def test_what_is_no_shape_is_refused(word: str) -> None:
    with pytest.raises(UsageProblem, match=r"give (INxOUT|sizes from 1 to 4096)"):
        Shape.parse(word)


@pytest.mark.slow
def test_it_tells_the_ratio_of_every_shape_with_its_interval() -> None:
    probe = probe_int8("ort-cpu", ["32x32x3@14x14", "256x256"], context=RunContext())
    assert [(row.format, row.shape) for row in probe.ratios] == [("onnx", "32x32x3@14x14"), ("onnx", "256x256")]
    for row in probe.ratios:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.ratio <= row.high
    conv, matrix = probe.ratios
    weighed = (conv.cost * conv.ratio + matrix.cost * matrix.ratio) / (conv.cost + matrix.cost)
    assert probe.overall()["onnx"] == pytest.approx(weighed)
    (line,) = probe.advice()
    bounds = probe.interval()["onnx"]
    assert bounds is not None
    assert ("quantize" in line) == (bounds[1] < 0.95)


@pytest.mark.parametrize("word", ["4x8x2@28x20", "3x5x3@9x7", "24x40"])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_small_model_repeats_the_layer_and_int8_answers_as_float(word: str, kind: Format) -> None:
    pair = probe_pair(Shape.parse(word), kind, 3)
    images = load("builtin:digits", "test").images[:100]
    answers = []
    for file in pair:
        with catalog.default_for(kind).open(file) as session:
            answers.append(session.run(images))
    meant, quantized = answers
    assert np.ptp(meant) > 0
    assert np.abs(quantized - meant).max() < 0.1 * np.ptp(meant)
    assert probe_pair(Shape.parse(word), kind, 3) == pair, "it is kept"
    weights = {tuple(tensor.dims) for tensor in probe_model(Shape.parse(word), 3).graph.initializer}
    shape = Shape.parse(word)
    window = (shape.kernel, shape.kernel) if shape.kernel else ()
    assert (shape.outputs, shape.inputs, *window) in weights


@pytest.mark.slow
def test_int8_helps_more_where_bytes_are_multiplied_at_once() -> None:
    emulated("cortex-a72")
    ratios = {
        cpu: probe_int8(f"arm64:{cpu}", ["64x64x3@7x7"], context=RunContext()).overall()
        for cpu in ("cortex-a72", "cortex-a76")
    }
    for kind in ("onnx", "tflite"):
        assert ratios["cortex-a76"][kind] < ratios["cortex-a72"][kind]


def test_places_without_a_cost_or_a_name_are_refused() -> None:
    with pytest.raises(UsageProblem, match="null is simulated and has no cost to measure"):
        probe_int8("null", ["8x8"], context=RunContext())
    with pytest.raises(UnknownTarget):
        probe_int8("ort-cpuu", [], context=RunContext())


def test_the_command_prints_one_object(glyphpress: Callable[..., Any]) -> None:
    done = glyphpress("probe-int8", "--target", "ort-cpu", "64x64", "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert (printed["schema"], printed["ratios"][0]["shape"]) == ("glyphpress/probe-int8/1", "64x64")
    assert all(isinstance(word, str) for word in printed["taints"])
    refused = glyphpress("probe-int8", "8by8")
    assert (refused.code, refused.out) == (2, "")


FACTS = RuntimeFacts("ort-cpu", "onnxruntime", "1", "a processor", 1)
EMULATED = RuntimeFacts("arm64:cortex-a72", "onnxruntime", "1", "QEMU", 1, device_type="emulated")


def test_row5_every_shape_weighs_what_it_costs_as_often_as_it_is_there() -> None:
    large, small = Ratio("64x64x3@24x24", "onnx", 0.5, cost=9_000), Ratio("8x8", "onnx", 2.0, cost=1_000)
    assert Int8Probe(FACTS, (large, small)).overall() == {"onnx": pytest.approx(0.65)}
    assert Int8Probe(FACTS, (large, replace(small, times=9))).overall() == {"onnx": pytest.approx(1.25)}


@pytest.mark.parametrize(
    ("low", "high", "conclusion"),
    [(0.70, 0.90, "quantize"), (0.90, 1.10, "undecided"), (0.93, 0.99, "undecided"), (0.97, 1.20, "will not pay")],
)
def test_row5_it_says_undecided_where_the_interval_does(low: float, high: float, conclusion: str) -> None:
    (line,) = Int8Probe(FACTS, (Ratio("8x8", "onnx", (low + high) / 2, low, high),)).advice()
    text = line.split(": ", 2)[2]
    assert text.startswith(conclusion) or conclusion in text
    assert ("undecided" in text) == (conclusion == "undecided")


def test_row7_a_probe_that_counts_speaks_of_no_speed() -> None:
    (line,) = Int8Probe(EMULATED, (Ratio("8x8", "onnx", 1.05),)).advice()
    assert "instructions" in line
    assert "speed" not in line
    assert "time" not in line


def test_row5_a_model_gives_its_own_shapes_and_names_what_none_stands_for(floats: dict[Format, Artifact]) -> None:
    shapes, left_out = shapes_of([str(floats["onnx"].path)])
    assert {str(shape): count for shape, count in shapes.items()} == {
        **{"1x24x5@14x14": 1, "24x48x3@14x14": 1, "48x64x3@7x7": 1, "64x96x3@7x7": 1, "96x128x3@4x4": 1},
        "128x10": 1,
    }
    assert left_out == ("Conv 128x1x4x4",)
    assert shapes_of(["8x8", "8x8"])[0] == {Shape(8, 8): 2}


@pytest.mark.parametrize(("words", "error"), [(["no.onnx"], StageError), (["8x8", "a.onnx"], UsageProblem)])
def test_row5_a_model_that_is_none_is_refused(words: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        shapes_of(words)


@pytest.mark.slow
def test_row5_what_is_told_of_a_model_holds_for_its_real_files(
    floats: dict[Format, Artifact], digits: Dataset, tmp_path: Path
) -> None:
    """cnn-small on a Cortex-A72: 0.77 told and 0.72 counted of the ONNX file, 0.86 and 0.87 of the TFLite file."""
    target = emulated("cortex-a72")
    overall = probe_int8("arm64:cortex-a72", [str(floats["onnx"].path)], context=RunContext()).overall()
    images = draw(digits, 256, seed=0)
    for kind in overall:
        quantized = quantize(floats[kind], Quantize(scheme="static-int8"), images, tmp_path / f"q.{kind}", recipe="q")
        before, after = target.count([floats[kind], quantized], runs=2, together=True)
        assert overall[kind] == pytest.approx(after.median / before.median, abs=0.12)
