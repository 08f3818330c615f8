"""The weights that ship, made from what a training saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.ship import ship
from calibration.load import load as load_images
from targets.artifact import file_sha256
from toolchain.checkpoint.load import load
from toolchain.checkpoint.metadata import our_facts
from toolchain.checkpoint.torch_files import read_safetensors
from toolchain.core.context import RunContext
from toolchain.training.fit import accuracy
from toolchain.training.presets import preset
from toolchain.training.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ship") / "model.pt"
    images, test = (load_images("builtin:digits", split) for split in ("train", "test"))
    train(images, settings=preset("digits").changed(epochs=2), test=test, out=path, context=RunContext(threads=1))
    return path


def test_the_file_says_what_its_rounded_weights_read(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "shipped.safetensors"
    card = ship(trained, "builtin:digits", out)
    assert out.stat().st_size < 0.6 * trained.stat().st_size
    model, test = load(str(out)).model, load_images("builtin:digits", "test")
    facts = our_facts(read_safetensors(out)[1], out)
    assert facts["accuracy"] == accuracy(model.torch_module("this test"), test, model.preprocess) > 0.5
    assert f"{facts['test']['right']} of {len(test)} images" in card
    assert file_sha256(out) in card


def test_other_images_than_those_of_the_training_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="other images"):
        ship(trained, "builtin:digits[0-8]", tmp_path / "shipped.safetensors")
    assert not list(tmp_path.iterdir())
