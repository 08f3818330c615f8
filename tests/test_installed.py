"""What `pip install` gives: a light core that judges without torch, and extras that the rest names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.fixtures.digit_files import digit_files
from tests.fixtures.environments import ROOT, Environment, environment, wheel_once
from tests.fixtures.small_readers import linear_reader

pytestmark = pytest.mark.slow
PRESS, LITERT = "'glyphpress[press]'", "'glyphpress[litert]'"
LARGEST = 500_000_000
"""Bytes of the core with all that it needs."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_once(tmp_path_factory)


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("core"), wheel)


def test_the_core_is_light(core: Environment) -> None:
    assert {"torch", "litert-torch", "ai-edge-litert"}.isdisjoint(core.packages)
    assert core.bytes() < LARGEST


def test_it_says_the_version_of_the_project(core: Environment, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert core.run("--version", cwd=tmp_path).stdout == f"glyphpress {version}\n"


def test_the_core_judges_measures_and_reports(core: Environment, tmp_path: Path) -> None:
    linear_reader(tmp_path / "float.onnx")
    linear_reader(tmp_path / "rounded.onnx", step=0.001)
    files = ("--baseline", "float.onnx", "--candidate", "rounded.onnx", "--data", "builtin:digits")
    for words in (
        ("gate", *files, "--policy", "smoke", "--html", "gate.html"),
        ("evaluate", "rounded.onnx", "--data", "builtin:digits", "--errors", "4", "-o", "sheet.png"),
        ("compare", "float.onnx", "rounded.onnx", "--data", "builtin:digits"),
        ("profile", "float.onnx", "rounded.onnx", "--runs", "20", "--out", "timed"),
        ("report", "timed"),
        ("data", "check", "builtin:digits"),
        ("inspect", "float.onnx"),
        ("targets", "list"),
        ("version",),
    ):
        done = core.run(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "gate.html").is_file()


def test_an_emulated_processor_takes_none_of_the_packages_beside_glyphpress(core: Environment, tmp_path: Path) -> None:
    linear_reader(tmp_path / "net.onnx")
    done = core.run("profile", "net.onnx", "--target", "arm64:cortex-a72", "--runs", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["instructions"]["median"] > 0


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (("press", "cnn-small", "--data", "builtin:digits", "--out", "out"), PRESS),
        (("train", "--model", "lenet5", "--data", "builtin:digits", "-o", "net.pt"), PRESS),
        (("prune", "cnn-small", "--data", "builtin:digits", "--ratio", "50%", "-o", "net.pt2"), PRESS),
        (("export", "cnn-small", "-o", "net.tflite"), PRESS),
        (("demo", "--out", "out"), PRESS),
        (("probe-int8",), PRESS),
        (("evaluate", "digits.float.tflite", "--data", "builtin:digits"), LITERT),
        (("inspect", "digits.float.tflite"), LITERT),
        (("quantize", "digits.float.tflite", "--data", "builtin:digits", "-o", "int8.tflite"), PRESS),
        (("data", "check", "glyphs.parquet"), "'glyphpress[parquet]'"),
    ],
)
def test_what_the_core_cannot_do_says_what_to_install(
    core: Environment, words: tuple[str, ...], package: str, tmp_path: Path
) -> None:
    digit_files(tmp_path)
    (tmp_path / "glyphs.parquet").write_bytes(b"PAR1")
    before = set(tmp_path.iterdir())
    done = core.run(*words, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert f"pip install {package}" in done.stderr.splitlines()[-1]
    assert set(tmp_path.iterdir()) == before


def test_litert_alone_runs_tflite(wheel: Path, tmp_path: Path) -> None:
    light = environment(tmp_path / "environment", wheel, ["litert"])
    assert "torch" not in light.packages
    digit_files(tmp_path)
    done = light.run("evaluate", "digits.float.tflite", "--data", "builtin:digits", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact"] == "digits.float.tflite"
