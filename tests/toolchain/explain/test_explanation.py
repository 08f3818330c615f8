"""Explanations: that the layer which is wrong is the one that is named, and what runs in which arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import log10
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw, image_hashes, unseen
from targets.artifact import Artifact, Format, TensorSpec
from targets.host.runtime_session import TensorCodec
from targets.preprocess import Preprocess
from tests.conftest import Finished
from tests.fixtures.lazy import blocks, torch
from tests.fixtures.planted_regressions import CONV3, planted, scale_times
from tests.fixtures.small_readers import linear_reader
from toolchain.checkpoint.float_model import TorchModel
from toolchain.explain.explanation import ErrorSums, explain
from toolchain.export import export
from toolchain.formats import catalog
from toolchain.formats import graph as kernel_words
from toolchain.quantize import onnx as onnx_quantizer
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

LAYERS = [*(f"features.conv{number}" for number in range(1, 6)), "features.pool", "classifier"]
KINDS: tuple[Format, ...] = ("onnx", "tflite")


@pytest.fixture(scope="module")
def sample(digits: Dataset, digits_test: Dataset, images: CalibrationSet) -> Dataset:
    return unseen(digits, digits_test, 64, 0, images.facts())


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_whose_scale_is_wrong_is_to_blame(
    kind: Format,
    floats: dict[Format, Artifact],
    pressed: dict[tuple[Format, str], Artifact],
    sample: Dataset,
    tmp_path: Path,
) -> None:
    broken = planted(pressed[kind, "static-int8"], tmp_path / f"broken.{kind}", scale_times(1.3, CONV3))
    explanation = explain(floats[kind], broken, sample)
    assert [row.layer for row in explanation.layers] == LAYERS
    assert explanation.blame()[0].layer == "features.conv3"
    rows = {row.layer: row for row in explanation.layers}
    # Everything is 1.3 times as much, so the noise is 0.3 of the signal, less what the range cuts off.
    assert rows["features.conv3"].alone.sqnr_db == pytest.approx(-20 * log10(0.3), abs=2)
    assert all(rows[layer].whole.sqnr_db > 25 for layer in LAYERS[:2])
    # What comes behind is wrong in the whole file, and not by itself.
    assert max(rows[layer].whole.sqnr_db for layer in LAYERS[3:]) < 20
    assert min(rows[layer].alone.sqnr_db for layer in LAYERS[3:]) > 28


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_that_are_too_narrow_are_seen_as_saturation(
    kind: Format, floats: dict[Format, Artifact], images: CalibrationSet, sample: Dataset, tmp_path: Path
) -> None:
    faint = replace(images, images=images.images // 4)
    cut = {}
    for name, drawn in (("right", images), ("faint", faint)):
        made = quantize(floats[kind], Quantize(scheme="static-int8"), drawn, tmp_path / f"{name}.{kind}", recipe=name)
        cut[name] = [row.whole.saturated for row in explain(floats[kind], made, sample).layers[:5]]
    # Ink a quarter as strong gives ranges that cut off what real ink gives, in each layer.
    assert max(cut["right"]) < min(cut["faint"])
    assert sum(cut["faint"]) > 10 * sum(cut["right"])


@pytest.mark.parametrize("scheme", ["weight-int4", "dynamic-int8", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_alone_are_explained_by_their_bits(
    kind: Format,
    scheme: str,
    floats: dict[Format, Artifact],
    pressed: dict[tuple[Format, str], Artifact],
    sample: Dataset,
) -> None:
    explanation = explain(floats[kind], pressed[kind, scheme], sample.take(np.arange(8), "few"))
    stored = {"weight-int4": {"int4", "int8"}, "dynamic-int8": {"int8"}, "float16": {"float16"}}[scheme]
    assert {row.weights for row in explanation.layers} <= stored
    low, high = {"weight-int4": (10, 30), "dynamic-int8": (35, 60), "float16": (60, 120)}[scheme]
    assert low < explanation.blame()[0].alone.sqnr_db < high
    assert json.loads(json.dumps(explanation.to_dict(), allow_nan=False))["layers"][0]["weights"] in stored


def test_an_integer_input_and_output_are_told_in_the_same_numbers(
    floats: dict[Format, Artifact], images: CalibrationSet, sample: Dataset, tmp_path: Path
) -> None:
    step = Quantize(scheme="static-int8", integer_io=True)
    for kind in KINDS:
        made = quantize(floats[kind], step, images, tmp_path / f"pixels.{kind}", recipe="pixels")
        assert min(row.whole.sqnr_db for row in explain(floats[kind], made, sample).layers) > 25


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_ends_at_the_same_tensor_where_its_activation_is_taken_apart(
    kind: Format, images: CalibrationSet, sample: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = TorchModel("swish", Preprocess(), sample.classes, "0" * 64, blocks.HardSwished().eval())
    whole = export(model, kind, tmp_path / f"float.{kind}")
    rounded = quantize(whole, Quantize(scheme="static-int8"), images, tmp_path / f"int8.{kind}", recipe="static-int8")
    assert min(row.alone.sqnr_db for row in explain(whole, rounded, sample).layers) > 25


def test_what_runs_in_float_is_told_with_its_reason(pressed: dict[tuple[Format, str], Artifact]) -> None:
    for kind in KINDS:
        kernels = catalog.get(kind).kernels(pressed[kind, "static-int8"])
        assert [(kernel.layer, kernel.integer, kernel.reason) for kernel in kernels] == [
            (layer, True, "") for layer in LAYERS
        ]
    dynamic = {
        kernel.layer: (kernel.integer, kernel.reason)
        for kernel in catalog.get("onnx").kernels(pressed["onnx", "dynamic-int8"])
    }
    assert dynamic == dict.fromkeys(LAYERS[:-1], (False, kernel_words.EXPANDED)) | {
        "classifier": (True, kernel_words.AT_RUN_TIME)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_kept_really_runs_in_float(
    kind: Format, floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    keep = ("features.conv1", "features.conv4", "features.pool")
    made = quantize(
        floats[kind], Quantize(scheme="static-int8", keep=keep), images, tmp_path / f"kept.{kind}", recipe="kept"
    )
    kernels = {kernel.layer: kernel for kernel in catalog.get(made.format).kernels(made) if kernel.layer}
    assert {layer for layer, kernel in kernels.items() if not kernel.integer} == set(keep)
    assert {kernels[layer].reason for layer in keep} == {kernel_words.FLOAT_WEIGHTS}


def test_onnxruntime_would_round_a_float_layer_between_integers(
    floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for `keep_apart`: should it go away in a later version, so may that."""
    monkeypatch.setattr(onnx_quantizer, "keep_apart", lambda _model, kept_layers: not kept_layers)
    step = Quantize(scheme="static-int8", keep=("features.conv4",))
    made = quantize(floats["onnx"], step, images, tmp_path / "kept.onnx", recipe="kept")
    kernels = {kernel.layer: kernel for kernel in catalog.get(made.format).kernels(made)}
    assert kernels["features.conv4"].integer
    assert "rounds them itself" in kernels["features.conv4"].reason


def test_an_error_is_what_its_definition_says() -> None:
    tally = ErrorSums(TensorCodec(TensorSpec("x", (-1, -1), "uint8", 2.0, 10)))
    # Representable are -20 to 490; beyond by more than half a step are the first and the last.
    tally.add(np.float32([[-22, -20.5, 0, 490.5]]), np.float32([[-20, -20, 0, 490]]))
    tally.add(np.float32([[600]]), np.float32([[490]]))
    error = tally.error()
    assert error.saturated == 2 / 5
    assert error.noise**2 == pytest.approx((4 + 0.25 + 0.25 + 110**2) / 5)
    assert error.signal**2 == pytest.approx((22**2 + 20.5**2 + 490.5**2 + 600**2) / 5)
    assert error.sqnr_db == pytest.approx(10 * log10(error.signal**2 / error.noise**2))


@given(st.floats(1e-4, 0.5), st.integers(1, 50))
def test_a_gain_costs_its_own_decibels_and_no_cosine(gain: float, size: int) -> None:
    exact = np.linspace(1, 2, size, dtype=np.float32)[None]
    tally = ErrorSums(None)
    tally.add(exact, exact * np.float32(1 + gain))
    error = tally.error()
    assert error.sqnr_db == pytest.approx(-20 * log10(gain), abs=0.1)
    assert error.cosine == pytest.approx(1)
    assert error.saturated is None


def test_no_error_is_no_figure() -> None:
    tally = ErrorSums(None)
    tally.add(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    assert (tally.error().sqnr_db, tally.error().noise) == (None, 0)


def test_the_sample_is_of_the_train_split_without_what_calibrated(digits: Dataset, digits_test: Dataset) -> None:
    drawn = draw(digits, 512, seed=3, exclude=digits_test)
    chosen = image_hashes(unseen(digits, digits_test, 10**6, 0, drawn.facts(), at_most=True).images)
    used = np.concatenate([image_hashes(drawn.images), image_hashes(digits_test.images)])
    assert not np.isin(chosen, used).any()
    everything = np.unique(image_hashes(digits.images))
    assert set(chosen) | set(used) >= set(everything)


def test_the_command_tells_every_layer_and_its_reasons(
    glyphpress: Callable[..., Finished],
    floats: dict[Format, Artifact],
    pressed: dict[tuple[Format, str], Artifact],
) -> None:
    command = ("explain", floats["onnx"].path, pressed["onnx", "dynamic-int8"].path, "--data", "builtin:digits")
    done = glyphpress(*command, "--images", 16)
    assert done.code == 0
    assert all(layer in done.out for layer in LAYERS)
    assert kernel_words.EXPANDED in done.out
    assert "16 not calibrated on" in done.out
    printed = json.loads(glyphpress(*command, "--images", 16, "--json").out)
    assert printed["schema"] == "glyphpress/explain/1"
    assert [row["layer"] for row in printed["layers"]] == LAYERS


def test_files_that_do_not_belong_together_are_refused_in_one_line(
    glyphpress: Callable[..., Finished],
    floats: dict[Format, Artifact],
    pressed: dict[tuple[Format, str], Artifact],
    tmp_path: Path,
) -> None:
    other = tmp_path / "other.onnx"
    linear_reader(other)
    base, candidate = floats["onnx"].path, pressed["onnx", "static-int8"].path
    for pair, code, message in (
        ((base, pressed["tflite", "static-int8"].path), 2, "cannot be compared layer by layer"),
        ((base, base), 2, "no quantized layer"),
        ((candidate, candidate), 2, "quantized itself"),
        ((other, candidate), 3, "not of one model"),
        ((base, tmp_path / "none.onnx"), 3, "no such file"),
    ):
        done = glyphpress("-q", "explain", *pair, "--data", "builtin:digits")
        assert (done.code, done.out) == (code, ""), done.err
        assert message in done.err
        assert done.err.count("\n") == 1
