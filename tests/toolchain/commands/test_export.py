"""Files of ONNX Runtime's own format, made of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import draw
from targets import catalog
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.export import export_checkpoint
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.quantize import quantize
from toolchain.recipe import Quantize


@pytest.fixture(scope="module")
def int8(pressed: dict[tuple[Format, str], Artifact]) -> Artifact:
    return pressed["onnx", "static-int8"]


def test_an_ort_file_answers_to_the_bit_says_what_it_is_and_lists_its_operators(
    int8: Artifact, digits_test: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "digits.ort"
    made = export_checkpoint(str(int8.path), CheckpointRequest(), path, ops_config=True, context=RunContext())
    assert (made.format, made.recipe, made.parent_sha256) == ("ort", "static-int8", int8.sha256)
    target = catalog.default_for("ort")
    with target.open(int8) as source, target.open(made) as session:
        assert np.array_equal(session.run(digits_test.images[:100]), source.run(digits_test.images[:100]))
    listed = (tmp_path / "digits.required_operators.config").read_text()
    assert listed.splitlines()[1] == "# - digits.ort"
    assert 'QLinearConv{"inputs": {"0": ["uint8_t"]}}' in listed
    made.sidecar.unlink()
    assert load_artifact(path) == replace(made, notes=())  # they stand in the sidecar alone


def test_raw_pixels_go_into_an_ort_file_too(floats: dict[Format, Artifact], digits: Dataset, tmp_path: Path) -> None:
    step = Quantize(scheme="static-int8", integer_io=True)
    source = quantize(floats["onnx"], step, draw(digits, 64, seed=0), tmp_path / "pixels.onnx", recipe="pixels")
    made = export_checkpoint(str(source.path), CheckpointRequest(), tmp_path / "pixels.ort", context=RunContext())
    assert made.inputs[0].dtype == "uint8"
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)
    target, images = catalog.default_for("ort"), digits.images[:100]
    with target.open(source) as meant, target.open(made) as session:
        assert np.array_equal(session.run(images), meant.run(images))
    made.sidecar.unlink()
    assert load_artifact(made.path).inputs == source.inputs


def test_an_ort_file_that_unpacks_its_weights_says_so(floats: dict[Format, Artifact], tmp_path: Path) -> None:
    source = quantize(floats["onnx"], Quantize(scheme="weight-int4"), None, tmp_path / "four.onnx", recipe="four")
    made = export_checkpoint(str(source.path), CheckpointRequest(), tmp_path / "four.ort", context=RunContext())
    assert made.size > 4 * source.size
    assert f"where the .onnx has {source.size:,}" in made.notes[-1]


def test_only_a_fitted_one_keeps_the_layout_of_this_processor(floats: dict[Format, Artifact], tmp_path: Path) -> None:
    source = str(floats["onnx"].path)
    portable = export_checkpoint(source, CheckpointRequest(), tmp_path / "any.ort", context=RunContext())
    fitted = export_checkpoint(source, CheckpointRequest(), tmp_path / "this.ort", this_cpu=True, context=RunContext())
    assert b"ReorderOutput" not in portable.path.read_bytes()
    assert "for any processor" in portable.notes[-1]
    assert "only processors like it" in fitted.notes[-1]
    if catalog.get("ort-cpu").probe().ok and b"ReorderOutput" not in fitted.path.read_bytes():
        pytest.skip("this processor has no layout of its own: NOT checked")


def test_its_options_are_refused_for_another_format(floats: dict[Format, Artifact], tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"--ops-config is for \.ort files"):
        export_checkpoint(
            str(floats["onnx"].path), CheckpointRequest(), tmp_path / "a.onnx", ops_config=True, context=RunContext()
        )
    (tmp_path / "b.required_operators.config").write_text("mine")
    with pytest.raises(UsageProblem, match="--force"):
        export_checkpoint(
            str(floats["onnx"].path), CheckpointRequest(), tmp_path / "b.ort", ops_config=True, context=RunContext()
        )
    assert not (tmp_path / "b.ort").exists()
