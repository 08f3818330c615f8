"""A really trained small model and its float files, made once for all tests of the press."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.dataset import Dataset, load
from targets.artifact import Artifact, Format
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.export import export
from toolchain.model import FloatModel
from toolchain.train import preset, train


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("builtin:digits", "train")


@pytest.fixture(scope="session")
def digits_test() -> Dataset:
    return load("builtin:digits", "test")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """A cnn-small that reads the built-in digits well."""
    path = tmp_path_factory.mktemp("trained") / "digits.pt"
    # One thread: two of them wait for each other where the machine has other work.
    train(digits, settings=preset("digits").changed(epochs=8), seed=0, threads=1, out=path)
    return path


@pytest.fixture(scope="session")
def float_model(checkpoint: Path) -> FloatModel:
    return settle(str(checkpoint), CheckpointRequest(), None).model


@pytest.fixture(scope="session")
def floats(tmp_path_factory: pytest.TempPathFactory, float_model: FloatModel) -> dict[Format, Artifact]:
    """The float file in each format."""
    folder = tmp_path_factory.mktemp("floats")
    kinds: tuple[Format, ...] = ("onnx", "tflite")
    return {kind: export(float_model, kind, folder / f"digits.float.{kind}") for kind in kinds}
