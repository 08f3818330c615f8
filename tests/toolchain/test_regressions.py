"""The shipped model on real handwriting: honest files pass the gate, planted regressions do not, and it says why."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.dataset import Dataset, load
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format, load_artifact, save_sidecar
from tests.toolchain.conftest import OnDemand
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

STATIC = Quantize(scheme="static-int8")
KINDS: tuple[Format, ...] = ("onnx", "tflite")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def balanced(emnist_root: Path) -> str:
    return f"{emnist_root / 'resplit'}:balanced"


@pytest.fixture(scope="module")
def train(balanced: str) -> Dataset:
    return load(balanced, "train")


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Artifact]:
    folder = tmp_path_factory.mktemp("balanced")
    model = settle("cnn-small", CheckpointRequest(), None).model
    return OnDemand(lambda kind: export(model, kind, folder / f"cnn.float.{kind}"))


@pytest.fixture(scope="module")
def baselines(floats: dict[Format, Artifact], balanced: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Saved evaluations of the float files, as CI keeps them."""
    from toolchain.verdict.subject import evaluate_file

    folder = tmp_path_factory.mktemp("baselines")

    def make(kind: Format) -> Path:
        evaluate_file(floats[kind].path, load(balanced, "test")).save(folder / f"{kind}.npz")
        return folder / f"{kind}.npz"

    return OnDemand(make)


def judged(glyphpress, baselines: dict, candidate: Artifact, balanced: str):
    base = baselines[candidate.format]
    return glyphpress("gate", "--baseline", base, "--candidate", candidate.path, "--data", balanced, "--json")


def classes_named(reason: str) -> list[str]:
    return re.findall(r"'(.+?)' \(", reason)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_static_int8_passes_at_the_default_margin_and_is_3_6_times_smaller(
    kind: Format, glyphpress, baselines: dict, floats, train: Dataset, balanced: str, tmp_path: Path
) -> None:
    images = draw(train, 512, seed=0)
    honest = quantize(floats[kind], STATIC, images, tmp_path / f"honest.{kind}", recipe="static-int8")
    verdict = judged(glyphpress, baselines, honest, balanced)
    assert verdict.code == 0, verdict.err
    assert json.loads(verdict.out)["comparison"]["upper"] < 0.003
    assert floats[kind].size / honest.size >= 3.6


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_set_of_blank_images_is_rejected(
    kind: Format, glyphpress, baselines: dict, floats, train: Dataset, balanced: str, tmp_path: Path
) -> None:
    drawn = draw(train, 64, seed=0)
    blank: CalibrationSet = replace(drawn, images=np.zeros_like(drawn.images))
    planted = quantize(floats[kind], STATIC, blank, tmp_path / f"blank.{kind}", recipe="static-int8")
    verdict = judged(glyphpress, baselines, planted, balanced)
    assert verdict.code == 1
    assert len(classes_named(json.loads(verdict.out)["verdicts"][0]["reason"])) >= 3
    assert "Traceback" not in verdict.err


def test_a_scale_times_four_is_rejected_and_the_reason_names_the_classes_that_suffered(
    glyphpress, baselines: dict, floats, train: Dataset, balanced: str, tmp_path: Path
) -> None:
    images = draw(train, 512, seed=0)
    honest = quantize(floats["onnx"], STATIC, images, tmp_path / "honest.onnx", recipe="static-int8")
    model = onnx.load(honest.path)
    rows = {"7": 7, "Z": 35}
    for tensor in model.graph.initializer:
        if tensor.name.endswith("classifier.weight_scale"):
            scale = numpy_helper.to_array(tensor).copy()
            scale[list(rows.values())] *= 4
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
            break
    else:
        pytest.fail(f"no scale to plant in: {[tensor.name for tensor in model.graph.initializer]}")
    planted = tmp_path / "planted.onnx"
    onnx.save(model, planted)
    artifact = load_artifact(planted)
    save_sidecar(artifact)
    verdict = judged(glyphpress, baselines, artifact, balanced)
    assert verdict.code == 1
    worst = {one["label"] for one in json.loads(verdict.out)["comparison"]["per_class"] if one["drop"] > 0.02}
    assert worst
    assert set(classes_named(json.loads(verdict.out)["verdicts"][0]["reason"])) <= worst
    assert "FAIL" in verdict.err


def test_a_candidate_made_for_other_classes_is_an_error_not_a_verdict(
    glyphpress, baselines: dict, floats, balanced: str, tmp_path: Path
) -> None:
    facts = json.loads(floats["onnx"].sidecar.read_text())
    facts["classes"][0], facts["classes"][1] = facts["classes"][1], facts["classes"][0]
    swapped = tmp_path / "swapped.onnx"
    swapped.write_bytes(floats["onnx"].path.read_bytes())
    swapped.with_name("swapped.onnx.json").write_text(json.dumps(facts))
    verdict = judged(glyphpress, baselines, load_artifact(swapped), balanced)
    assert verdict.code == 3
    assert "another order" in verdict.err
