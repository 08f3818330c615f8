"""A really trained small model and its float files, made once for all tests of the press."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from calibration.dataset import Dataset
from calibration.load import load
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format
from tests.fixtures.exported_once import taking
from tests.fixtures.made_once import artifact_once, once, run_folder
from tests.fixtures.reports import report_validator
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands import press_files
from toolchain.core.context import RunContext
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Quantize
from toolchain.report.report import Report
from toolchain.training.presets import preset
from toolchain.training.train import train

K = TypeVar("K")
V = TypeVar("V")


@pytest.fixture(scope="session", autouse=True)
def every_report_keeps_to_its_schema() -> Iterator[None]:
    """Check each report.json that a test writes against the published schema."""
    save = Report.save

    def checked(self: Report, path: Path, *, force: bool = False) -> None:
        save(self, path, force=force)
        report_validator().validate(json.loads(path.read_text(encoding="utf-8")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Report, "save", checked)
        yield


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("builtin:digits", "train")


@pytest.fixture(scope="session")
def digits_test() -> Dataset:
    return load("builtin:digits", "test")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """A cnn-small that reads the built-in digits well."""
    settings = preset("digits").changed(epochs=8)
    # One thread: two of them wait for each other where the machine has other work.
    return once(
        run_folder(tmp_path_factory) / "digits.pt",
        lambda path: train(digits, settings=settings, out=path, context=RunContext(seed=0, threads=1)),
    )


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
    folder = run_folder(tmp_path_factory)

    def make(kind: Format) -> Artifact:
        return artifact_once(folder / f"digits.float.{kind}", lambda path: export(float_model, kind, path))

    return OnDemand(make)


@pytest.fixture
def shared_floats(monkeypatch: pytest.MonkeyPatch, float_model: FloatModel, floats: dict[Format, Artifact]) -> None:
    """Let a press of `checkpoint` copy `floats` instead of converting again what another test checks."""
    monkeypatch.setattr(press_files, "export", taking(press_files.export, float_model, floats))


@pytest.fixture(scope="session")
def images(digits: Dataset, digits_test: Dataset) -> CalibrationSet:
    """What `pressed` is calibrated on."""
    return draw(digits, 256, seed=0, exclude=digits_test)


@pytest.fixture(scope="session")
def pressed(
    tmp_path_factory: pytest.TempPathFactory, floats: dict[Format, Artifact], images: CalibrationSet
) -> dict[tuple[Format, str], Artifact]:
    """The float files quantized, by format and scheme."""
    folder = run_folder(tmp_path_factory)

    def make(way: tuple[Format, str]) -> Artifact:
        kind, scheme = way
        step = Quantize.model_validate({"scheme": scheme})
        drawn = images if step.calibrated else None
        return artifact_once(
            folder / f"digits.{scheme}.{kind}", lambda path: quantize(floats[kind], step, drawn, path, recipe=scheme)
        )

    return OnDemand(make)
