"""What every scheme of the table keeps, in every format that it names; and what a new one takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact
from tests.fixtures.extended import Extended
from tests.fixtures.quantized import read
from toolchain.core.errors import StageError
from toolchain.quantize import quantize
from toolchain.quantize.schemes import SCHEMES
from toolchain.recipe import Quantize

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
MADE = [(kind, name) for name, row in SCHEMES.items() for kind in FORMATS if kind in row.formats]
NOT_MADE = [(kind, name) for name, row in SCHEMES.items() for kind in FORMATS if kind not in row.formats]


@pytest.mark.parametrize("way", MADE, ids="-".join)
def test_it_makes_a_valid_file_that_records_the_scheme(
    way: tuple[Format, str],
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    digits_test: Dataset,
) -> None:
    kind, name = way
    made, base = pressed[way], floats[kind]
    assert load_artifact(made.path) == made
    facts = json.loads(made.sidecar.read_text())
    assert (facts["recipe"], facts["parent_sha256"]) == (name, base.sha256)
    assert facts["calibration"] == (images.facts() if SCHEMES[name].calibrated else None)
    # No smaller than its weights, and no larger than they and the float parts are.
    assert SCHEMES[name].weights / 32 * 0.9 < made.size / base.size < SCHEMES[name].weights / 32 + 0.1
    answers = read(made, digits_test.images[:64])
    assert np.isfinite(answers).all()
    assert (answers.argmax(1) == read(base, digits_test.images[:64]).argmax(1)).mean() > 0.95


@pytest.mark.parametrize("way", MADE, ids="-".join)
def test_it_needs_images_exactly_where_it_says_so(
    way: tuple[Format, str], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    kind, name = way
    step, path = Quantize.from_options(scheme=name), tmp_path / f"a.{kind}"
    assert step.needs_images == step.needs_training == SCHEMES[name].calibrated
    if step.needs_images:
        with pytest.raises(StageError, match=f"{name} takes its ranges from a calibration set; give --data"):
            quantize(floats[kind], step, None, path, recipe=name)
    else:
        quantize(floats[kind], step, None, path, recipe=name)
    assert path.exists() is not step.needs_images


@pytest.mark.parametrize("way", NOT_MADE, ids="-".join)
def test_a_format_that_it_does_not_name_is_refused_with_the_reason(
    way: tuple[Format, str], floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    kind, name = way
    with pytest.raises(StageError) as refused:
        quantize(floats[kind], Quantize.from_options(scheme=name), images, tmp_path / f"a.{kind}", recipe=name)
    assert str(refused.value).endswith(f"no {name} in this format: {SCHEMES[name].refused[kind]}")


ROUNDED = """
import numpy as np
import onnx
from onnx import numpy_helper


def rounded(artifact, step, ranges, log):
    model = onnx.load(artifact.path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            values = np.round(numpy_helper.to_array(tensor), 3)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()
"""
ROW = '    Scheme("rounded", 16, "float", {"onnx": "toolchain.quantize.rounded:rounded"}, "Short.", scaled=False),'


def test_a_new_scheme_is_one_file_and_one_line(
    floats: dict[Format, Artifact], digits_test: Dataset, tmp_path: Path
) -> None:
    table = "toolchain/quantize/schemes.py"
    extended = Extended.of(tmp_path, "toolchain/quantize/rounded.py", ROUNDED, table=table, after="_ROWS = (", line=ROW)
    base, out = floats["onnx"], tmp_path / "rounded.onnx"
    done = extended.run("quantize", base.path, "--scheme", "rounded", "-o", out)
    assert done.returncode == 0, done.stderr
    made = load_artifact(out)
    assert made.recipe == "rounded"
    answers = [read(one, digits_test.images[:64]) for one in (base, made)]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 0.5
    refused = extended.run("quantize", base.path.with_suffix(".tflite"), "--scheme", "rounded", "-o", "a.tflite")
    assert refused.returncode == 2
    assert "no rounded in this format: this scheme makes onnx only" in refused.stderr
