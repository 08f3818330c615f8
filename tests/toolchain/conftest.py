"""A really trained small model and its float files, made once for all tests of the press."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from calibration.dataset import Dataset, load
from targets.artifact import Artifact, Format
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.export import export
from toolchain.model import FloatModel
from toolchain.train import preset, train

K = TypeVar("K")
V = TypeVar("V")


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


class OnDemand(dict[K, V]):
    """Makes a file when it is first asked for, so that ONNX is tested where TFLite cannot be made."""

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, key: K) -> V:
        self[key] = self.make(key)
        return self[key]


@pytest.fixture(scope="session")
def floats(tmp_path_factory: pytest.TempPathFactory, float_model: FloatModel) -> dict[Format, Artifact]:
    """The float file in each format."""
    folder = tmp_path_factory.mktemp("floats")
    return OnDemand(lambda kind: export(float_model, kind, folder / f"digits.float.{kind}"))
