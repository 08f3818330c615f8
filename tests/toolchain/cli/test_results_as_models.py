"""A file of results where a model, or another result, is expected: the message says what it is and what reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolchain.cli.main import main

DATA = ("--data", "builtin:digits")


def run(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["glyphpress", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code, words


@pytest.fixture(scope="module")
def results(floats, pressed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of file that commands leave beside models."""
    folder = tmp_path_factory.mktemp("results")
    made = {
        "timings": folder / "t.npz",
        "evaluation": folder / "e.npz",
        "baseline": folder / "b.npz",
        "evidence": folder / "ev.json",
        "verdict": folder / "v.json",
        "ranges": folder / "r.json",
    }
    base, candidate = floats["onnx"].path, pressed["onnx", "static-int8"].path
    run("profile", base, "--seconds", "1ms", "-o", made["timings"])
    run("evaluate", base, *DATA, "-o", made["evaluation"])
    run("gate", "baseline", base, *DATA, "-o", made["baseline"])
    judged = ("--baseline", base, "--candidate", candidate, "--policy", "smoke")
    run("gate", *judged, *DATA, "--evidence", made["evidence"], "--verdict", made["verdict"])
    run("quantize", base, *DATA, "-o", folder / "q.onnx", "--save-ranges", made["ranges"])
    press = ("--recipe", "float16", "--format", "onnx", "--policy", "smoke", "--seconds", "1ms")
    run("press", base, *DATA, *press, "--out", folder / "out")
    return made | {"report": folder / "out" / "report.json", "artifact": folder / "q.onnx.json"}


READS = {
    "timings": "holds stored timings; `glyphpress report {}` shows them, and compares those of several files",
    "evaluation": "is a saved evaluation; `glyphpress compare` takes it, and `gate` as --baseline or --candidate",
    "baseline": "is a stored baseline; `glyphpress gate --baseline {}` takes it",
    "evidence": "is stored evidence; `glyphpress gate --from {}` judges it",
    "verdict": "is a stored verdict; give the model that it judges",
    "ranges": "holds ranges of activations; `glyphpress ranges {}` shows them, `quantize --ranges` takes them",
    "report": "is the report of a press; `glyphpress report {}` shows it",
    "artifact": "is the sidecar of a model; give ",
}
TAKES = {
    "compare X X": {"evaluation", "baseline"},
    "evaluate X DATA": set(),
    "inspect X": set(),
    "profile X": set(),
    "quantize X DATA -o Z.onnx": set(),
    "export X -o Z.onnx": set(),
    "gate --from X": {"evidence"},
    "gate --baseline X --candidate X DATA": {"evaluation", "baseline"},
    "report X": {"report", "timings"},
    "ranges X": {"ranges"},
}


@pytest.mark.parametrize("command", TAKES)
def test_row38_what_takes_other_files_says_what_reads_this_one(
    command: str, glyphpress, results: dict[str, Path], tmp_path: Path
) -> None:
    for kind in READS.keys() - TAKES[command]:
        words = command.replace("Z", str(tmp_path / "z")).replace("DATA", " ".join(DATA)).split()
        ran = glyphpress(*(results[kind] if word == "X" else word for word in words))
        assert ran.code in (2, 3), (kind, ran.out)
        assert f"{results[kind]} {READS[kind].format(results[kind])}" in ran.err, (kind, ran.err)


def test_compare_of_files_without_images_says_first_what_is_no_model(glyphpress, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    ran = glyphpress("compare", tmp_path / "x.json", tmp_path / "x.json")
    assert "neither .onnx, .ort nor .tflite; `glyphpress export` makes one" in ran.err
