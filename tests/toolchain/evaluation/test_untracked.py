"""Files that glyphpress did not make: judged, timed and quantized all the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.dataset import Dataset
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint.float_model import TorchModel
from toolchain.core.errors import CheckpointError, EvidenceError
from toolchain.evaluation.untracked import open_artifact
from toolchain.export import export


@pytest.fixture(scope="module")
def strange(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's model: trained on transposed, inverted images, first column unused, no word about it in the file."""
    preprocess = Preprocess(orientation="transpose", invert=True, label_offset=1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 11))
    pixels, labels = torch.from_numpy(preprocess.apply(digits.images)), torch.from_numpy(digits.labels + 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(pixels), labels).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("strange")
    model = TorchModel("strange", preprocess, digits.classes, "0" * 64, module.eval())
    made = export(model, "onnx", folder / "made.onnx")
    proto = onnx.load(made.path)
    del proto.metadata_props[:]
    onnx.save(proto, folder / "strange.onnx")
    return folder / "strange.onnx"


def test_how_it_wants_its_images_is_found(strange: Path, digits: Dataset) -> None:
    artifact = open_artifact(strange, lambda: digits)
    preprocess = artifact.preprocess
    assert (preprocess.orientation, preprocess.invert, preprocess.label_offset) == ("transpose", True, 1)
    assert artifact.recipe == "foreign"


def test_without_images_or_when_it_reads_none_of_them_the_reason_is_given(strange: Path, digits: Dataset) -> None:
    with pytest.raises(EvidenceError, match="--data"):
        open_artifact(strange, None)
    noise = np.random.default_rng(0).integers(0, 256, digits.images.shape, dtype=np.uint8)
    unread = Dataset(noise, digits.labels, digits.classes, "noise", "train", "0" * 64)
    with pytest.raises(CheckpointError, match="does not read these images"):
        open_artifact(strange, lambda: unread)


def test_every_command_that_takes_a_file_takes_it(glyphpress, strange: Path, tmp_path: Path) -> None:
    data = ("--data", "builtin:digits")
    read = glyphpress("evaluate", strange, *data, "--json")
    assert read.code == 0, read.err
    assert json.loads(read.out)["metrics"]["accuracy"] > 0.9
    small = tmp_path / "small.onnx"
    quantized = glyphpress("quantize", strange, *data, "-o", small)
    assert quantized.code == 0, quantized.err
    assert small.stat().st_size < 0.5 * strange.stat().st_size
    # Which of two scalings a linear model wants, its answers do not tell; only their confidence would differ.
    judged = glyphpress("gate", "--baseline", strange, "--candidate", small, *data, "--policy", "smoke")
    assert judged.code == 0, judged.err
    assert glyphpress("profile", strange, small, "--seconds", "1ms", "--runs", "20").code == 0


def test_a_tflite_file_without_its_sidecar_is_adopted_too(
    floats: dict[Format, Artifact], digits: Dataset, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(floats["tflite"].path.read_bytes())
    assert open_artifact(alone, lambda: digits).preprocess.orientation == "upright"


def test_a_sidecar_can_be_written_once_and_then_explains_the_file(glyphpress, strange: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(strange.read_bytes())
    command = ("adopt", mine, "--data", "builtin:digits")
    adopted = glyphpress(*command)
    assert adopted.code == 0, adopted.err
    assert load_artifact(mine).preprocess.orientation == "transpose"
    assert glyphpress(*command, "--orientation", "rot90").code == 2
    given = glyphpress(*command, "--orientation", "rot90", "--label-offset", "1", "--force")
    assert given.code == 0, given.err
    assert load_artifact(mine).preprocess == Preprocess(orientation="rot90", label_offset=1)
    assert mine.read_bytes() == strange.read_bytes()


def test_a_machine_without_onnx2torch_is_told_the_pip_line(
    glyphpress, strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("toolchain.checkpoint.onnx_torch.find_spec", lambda name: None)
    monkeypatch.setattr(
        "toolchain.checkpoint.float_model.find_spec", lambda name: None if name == "onnx2torch" else find_spec(name)
    )
    command = ("export", strange, "--data", "builtin:digits", "-o")
    refused = glyphpress(*command, tmp_path / "strange.tflite")
    assert refused.code == 4
    assert "pip install --no-deps onnx2torch" in refused.err
    assert list(tmp_path.iterdir()) == []
    # What does not need torch goes on.
    assert glyphpress(*command, tmp_path / "strange.onnx").code == 0
