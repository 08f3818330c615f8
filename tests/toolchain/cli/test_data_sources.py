"""Every source of images that docs/sources.md lists, from the file to the gate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from tests.fixtures.data_files import LAYOUTS, Halves, kaggle, table
from tests.fixtures.official_files import strokes
from tests.fixtures.small_readers import linear_reader


@pytest.fixture(scope="module")
def halves() -> Halves:
    sets = {split: load("builtin:digits", split) for split in ("train", "test")}  # type: ignore[arg-type]
    order = {split: np.argsort(data.labels, kind="stable") for split, data in sets.items()}
    return {split: (data.images[order[split]], data.labels[order[split]]) for split, data in sets.items()}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("readers")
    return linear_reader(folder / "float.onnx"), linear_reader(folder / "rounded.onnx", step=0.001)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gate_judges_the_same_in_every_layout(
    glyphpress, layout: str, tmp_path: Path, halves: Halves, readers: tuple[Path, Path]
) -> None:
    spec = LAYOUTS[layout](tmp_path, halves)
    baseline, candidate = readers
    words = ("gate", "--baseline", baseline, "--candidate", candidate, "--policy", "smoke", "--json")
    ran = glyphpress(*words, "--data", spec)
    wanted = glyphpress(*words, "--data", "builtin:digits")
    assert ran.code == wanted.code == 0, ran.err
    found, original = (json.loads(run.out)["comparison"] for run in (ran, wanted))
    for key in ("images", "baseline_accuracy", "candidate_accuracy", "lost", "gained", "interval"):
        assert found[key] == original[key]
    assert found["dataset_sha256"] == Dataset.of(*halves["test"], tuple("0123456789"), "", "test").sha256
    checked = glyphpress("data", "check", spec, "--json")
    report = json.loads(checked.out)
    assert [split["shape"][0] for split in report["splits"]] == [599, 1198]
    assert report["orientation"]["looks"] == "upright"
    assert report["shared"] == 0


def test_what_was_found_is_said_once_and_not_with_q(glyphpress, tmp_path: Path, halves: Halves, readers) -> None:
    spec = kaggle(tmp_path, halves)
    for words, times in (([], 1), (["-q"], 0)):
        ran = glyphpress(*words, "evaluate", readers[0], "--data", spec)
        assert ran.code == 0, ran.err
        assert ran.err.count("orientation transpose (") == times
    assert "orientation transpose (" in glyphpress("data", "check", spec).out


@pytest.mark.parametrize(
    ("content", "hint", "code", "said"),
    [
        (b"", "", 3, "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "", 3, "git lfs pull"),
        (table(strokes(40), np.arange(40) % 10).replace(b"\n", b",7\n", 1), "", 3, "line 1"),
        (table(strokes(40), np.arange(40) % 10), "", 2, "write"),
        (table(strokes(40), np.arange(40) % 10 + 60), ":digits,upright", 3, "line 1: expected a label from 0 to 9"),
        (table(strokes(40), np.arange(40) % 10), ":digits,backwards", 2, "'backwards' says nothing"),
        (table(strokes(40), np.zeros(40, int)), ":digits,upright", 3, "a single class"),
    ],
)
def test_bad_files_end_in_one_line(
    glyphpress, content: bytes, hint: str, code: int, said: str, tmp_path: Path, readers
) -> None:
    path = tmp_path / "scans_test.csv"
    path.write_bytes(content)
    for words in (("evaluate", readers[0], "--data"), ("data", "check")):
        ran = glyphpress(*words, f"{path}{hint}")
        assert (ran.code, ran.out) == (code, ""), ran.err
        assert said in ran.err
        assert "Traceback" not in ran.err
