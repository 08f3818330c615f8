from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.dataset import Dataset
from targets import catalog
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, nn, torch
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.core.errors import PackageMissing, ParityError, StageError, UsageProblem
from toolchain.export import export, reference_logits

KINDS: tuple[Format, ...] = ("onnx", "tflite")


def answers(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    with catalog.default_for(artifact.format).open(artifact) as session:
        return session.run(images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_answers_like_torch_on_images_it_was_not_checked_on(
    kind: Format, floats: dict[Format, Artifact], float_model: FloatModel, digits_test: Dataset
) -> None:
    expected = reference_logits(float_model, digits_test.images)
    assert np.abs(answers(floats[kind], digits_test.images) - expected).max() < 1e-4


def test_onnx_has_a_dynamic_batch_and_the_agreed_names(floats: dict[Format, Artifact]) -> None:
    model = onnx.load(floats["onnx"].path)
    onnx.checker.check_model(model, full_check=True)
    assert [(spec.name, spec.shape) for spec in floats["onnx"].inputs] == [("image", (-1, 1, 28, 28))]
    assert [(spec.name, spec.shape) for spec in floats["onnx"].outputs] == [("logits", (-1, 10))]


def test_onnx_holds_little_beyond_its_weights(floats: dict[Format, Artifact]) -> None:
    model = onnx.load(floats["onnx"].path)
    weights = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    assert floats["onnx"].size - weights < 4000


@pytest.mark.parametrize("kind", KINDS)
def test_the_sidecar_says_what_the_file_is(
    kind: Format, floats: dict[Format, Artifact], float_model: FloatModel
) -> None:
    facts = json.loads(floats[kind].sidecar.read_text())
    assert facts["parent_sha256"] == float_model.checkpoint_sha256
    assert facts["bytes"] == floats[kind].path.stat().st_size
    assert facts["classes"] == list("0123456789")
    assert "torch" in facts["tools"]
    assert load_artifact(floats[kind].path) == floats[kind]


def test_an_onnx_file_explains_itself_without_its_sidecar(floats: dict[Format, Artifact], tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(floats["onnx"].path.read_bytes())
    assert load_artifact(alone) == replace(floats["onnx"], path=alone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_model_gives_the_same_bytes(
    kind: Format, floats: dict[Format, Artifact], float_model: FloatModel, tmp_path: Path
) -> None:
    assert export(float_model, kind, tmp_path / f"again.{kind}").sha256 == floats[kind].sha256


def test_preprocess_and_label_offset_reach_the_file(digits_test: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 11)).eval()
    preprocess = Preprocess(orientation="rot90", invert=True, mean=0.2, std=0.3, label_offset=1)
    model = TorchModel("turned", preprocess, tuple("0123456789"), "0" * 64, module)
    artifact = export(model, "onnx", tmp_path / "turned.onnx")
    # np.rot90 turns counter-clockwise, as `rot90` says
    turned = (255 - np.rot90(digits_test.images, axes=(1, 2)).astype(np.float32)) / 255
    by_hand = module(torch.from_numpy((turned[:, None] - 0.2) / 0.3).float()).detach().numpy()[:, 1:]
    assert np.abs(answers(artifact, digits_test.images) - by_hand).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("module", "error"), [("Unfaithful", ParityError), ("Branching", StageError)])
def test_a_conversion_that_changes_or_refuses_the_model_leaves_nothing(
    kind: Format, module: str, error: type[StageError], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = TorchModel("broken", Preprocess(), tuple("0123456789"), "0" * 64, getattr(blocks, module)().eval())
    with pytest.raises(error) as refused:
        export(model, kind, tmp_path / f"broken.{kind}")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_row12_large_logits_are_allowed_the_rounding_of_their_size(kind: Format, scale: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 676, 10)).eval()
    with torch.no_grad():
        module[3].weight.mul_(scale)
    model = TorchModel("large", Preprocess(), tuple("0123456789"), "0" * 64, module)
    export(model, kind, tmp_path / f"large.{kind}")


def test_row12_what_a_conversion_changed_is_told_with_the_size_of_the_logits(tmp_path: Path) -> None:
    model = TorchModel("broken", Preprocess(), tuple("0123456789"), "0" * 64, blocks.Unfaithful().eval())
    with pytest.raises(ParityError, match=r"logits differ .* where .* is allowed \(the largest logit is"):
        export(model, "onnx", tmp_path / "broken.onnx")


def test_nothing_is_overwritten_without_force(float_model: FloatModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(UsageProblem, match="--force"):
        export(float_model, "onnx", path)
    assert path.read_bytes() == b"mine"


def test_a_machine_without_the_tflite_converter_is_told_what_to_do(
    float_model: FloatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolchain.export.tflite.find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match=r"pip install 'glyphpress\[press\]'"):
        export(float_model, "tflite", tmp_path / "none.tflite")
    assert list(tmp_path.iterdir()) == []
