"""Numbers of a recipe and of a policy that nobody means: one line that names file and key, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished

STEPS = {
    "prune": ("ratio", "macs", "parameters", "bytes", "epochs", "iterations", "soft", "temperature", "round_to"),
    "distill": ("epochs", "augment", "temperature", "soft", "dropout"),
    "equalize": ("sweeps",),
    "qat": ("epochs", "lr", "augment", "temperature", "soft"),
    "quantize": ("calibration_images", "percentile", "fallback"),
}
LIMITS = {
    "drop": ("max", "confidence"),
    "stress": ("max", "seed"),
    "runtimes": ("max",),
    "leaks": ("max",),
    "size": ("max",),
    "shrink": ("min",),
    "p95": ("max",),
    "baseline": ("min_accuracy",),
}
MARGINS, MARGIN = {"max", "min", "min_accuracy"}, 'max = "1pp"\n'
NUMBERS = {"huge": "1" + "0" * 30, "nan": "nan", "inf": "inf", "negative": "-1", "quoted": '"1e999"'}
SCHEME = {"quantize": 'scheme = "static-int8"\n', "distill": 'student = "cnn-small"\n'}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("step", [pytest.param(step, id=f"row35-{step}") for step in STEPS])
def test_numbers_of_a_recipe(step: str, number: str, tmp_path: Path, glyphpress: Callable[..., Finished]) -> None:
    for key in STEPS[step]:
        path = tmp_path / "mine.toml"
        path.write_text(f'name = "mine"\n[[steps]]\nkind = "{step}"\n{SCHEME.get(step, "")}{key} = {NUMBERS[number]}\n')
        done = glyphpress("recipe", "show", path)
        assert (done.code, done.err.count("\n")) == (2, 1), (key, done.err)
        assert str(path) in done.err
        assert key in done.err


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("table", [pytest.param(table, id=f"row35-{table}") for table in LIMITS])
def test_numbers_of_a_policy(table: str, number: str, tmp_path: Path, glyphpress: Callable[..., Finished]) -> None:
    for key in LIMITS[table]:
        path = tmp_path / "mine.toml"
        path.write_text(f"[{table}]\n{'' if key in MARGINS else MARGIN}{key} = {NUMBERS[number]}\n")
        done = glyphpress("gate", "--baseline", "no.onnx", "--candidate", "no.onnx", "--policy", path)
        assert (done.code, done.err.count("\n")) == (2, 1), (key, done.err)
        assert str(path) in done.err
        assert key in done.err


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 20_000], ids=["row35-digits", "row35-nesting"])
def test_numbers_that_toml_cannot_read(value: str, tmp_path: Path, glyphpress: Callable[..., Finished]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[drop]\nmax = {value}\n")
    for words in (("recipe", "show", path), ("gate", "--baseline", "a", "--candidate", "b", "--policy", path)):
        done = glyphpress(*words)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert str(path) in done.err
