"""The page of reference models: made by a press, and nothing on it that a stored result does not say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import models as bench
from tests.conftest import Finished
from toolchain import models
from toolchain.core.json_codec import from_json, to_json


def test_the_page_is_what_the_stored_results_say() -> None:
    stored = [bench.load(path) for name in bench.REFERENCES if (path := bench.RESULTS / f"{name}.json").is_file()]
    assert bench.PAGE.read_text(encoding="utf-8") == bench.page(stored)
    reference = bench.REFERENCE.read_text(encoding="utf-8")
    assert reference == bench.with_table(reference, stored)


def test_every_reference_model_has_a_row() -> None:
    assert set(models.names()) <= {reference.model for reference in bench.REFERENCES.values()}


@pytest.mark.parametrize(("right", "verdict"), [(599, "accepted"), (570, "not decided"), (550, "rejected")], ids=str)
def test_a_hypothesis_is_decided_by_the_interval_alone(right: int, verdict: str) -> None:
    result = bench.ModelResult("svc", "builtin:digits8x8/test", "", "", "", "", None, None, 599, right, ())
    assert f"95.0 %: {verdict} with" in bench.page([result])


@pytest.mark.slow
def test_a_model_is_trained_pressed_and_judged_by_the_commands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, glyphpress: Callable[..., Finished]
) -> None:
    def run_here(command: str, *rest: Any, allowed: tuple[int, ...] = (0,)) -> str:
        """Run a press in this process, which has imported torch."""
        if not command.startswith("press"):
            return apart(command, *rest, allowed=allowed)
        done = glyphpress(*shlex.split(command))
        assert done.code in allowed, done.err
        return done.out

    apart = bench._run
    monkeypatch.setattr(bench, "_run", run_here)
    monkeypatch.chdir(tmp_path)
    press = "--recipe static-int8 --format onnx --seconds 20ms --policy smoke"
    row = bench.Reference("cnn-small", "builtin:digits", "a test", 0.999, "--epochs 1", press=press, letters=True)
    monkeypatch.setattr(bench, "REFERENCES", {"tiny": row})
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    result = bench.measure("tiny", "unused", tmp_path, checkpoint=None, trained="", tried="wider")
    assert (tmp_path / "tiny.pt").is_file()
    assert result.train == "glyphpress train --model cnn-small --data builtin:digits --epochs 1 -o tiny.pt"
    assert [(file.format, file.recipe) for file in result.files] == [("onnx", "float"), ("onnx", "static-int8")]
    assert sum(row.right for row in result.per_class) == result.right
    assert from_json(bench.ModelResult, json.dumps(to_json(result))) == result
    (tmp_path / "tiny.json").write_text(json.dumps(to_json(result)))
    quick = replace(row, press="--recipe float --format onnx --seconds 20ms", letters=False)
    monkeypatch.setattr(bench, "REFERENCES", {"tiny": quick})
    again = bench.measure("tiny", "unused", tmp_path, checkpoint=str(tmp_path / "tiny.pt"), trained="", tried="")
    assert (again.trained, again.tried, again.right) == (result.trained, "wider", result.right)
    assert "| `tiny` | ONNX |" in bench.page([again])
    monkeypatch.setattr(bench, "REFERENCES", {"tiny": row})
    page = bench.page([result])
    for text in ("99.9 %: **not reached**", "| `tiny` | ONNX |", result.press, "class by class", "**tiny.** wider"):
        assert text in page
