"""`--force` replaces earlier results, never what the same run reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader, pair

Run = Callable[..., Finished]
GATE = ("gate", "--baseline", "float.npz", "--candidate", "int8.npz", "--policy", "gate.toml")
DATA = ("--data", "builtin:digits")
CASES = {
    "policy": (*GATE, "--html", "gate.toml"),
    "baseline": (*GATE, "--evidence", "float.npz"),
    "candidate by another name": (*GATE, "--verdict", "link.npz"),
    "file that is judged": ("gate", "--baseline", "float.npz", "--candidate", "own.onnx", "--html", "own.onnx"),
    "sidecar": ("gate", "--baseline", "float.npz", "--candidate", "own.onnx", "--verdict", "own.onnx.json"),
    "evidence": ("gate", "--from", "e.json", "--verdict", "e.json"),
    "policy of a stored baseline": ("gate", "baseline", "own.onnx", *DATA, "--policy", "p.npz", "-o", "p.npz"),
    "evaluated file": ("evaluate", "own.onnx", *DATA, "--csv", "own.onnx"),
    "evaluated file's sidecar": ("evaluate", "own.onnx", *DATA, "--confusion", "own.onnx.json"),
    "profiled file": ("profile", "own.onnx", "--markdown", "own.onnx"),
    "quantized file": ("quantize", "own.onnx", *DATA, "--scheme", "static-int8", "-o", "own.onnx"),
    "recipe for a sidecar": ("press", "own.onnx", *DATA, "--recipe", "out/r.toml", "--out", "out"),
    "snippet": ("snippet", "own.onnx", "-o", "own.onnx.json"),
}


def contents(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_not_even_force_replaces_what_the_run_reads(
    words: tuple[str, ...], glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, evaluation in zip(("float.npz", "int8.npz"), pair(3, 2, 300), strict=True):
        evaluation.save(Path(name))
    linear_reader(Path("own.onnx"))
    Path("gate.toml").write_text('[drop]\nmax = "5pp"\n')
    Path("p.npz").write_text('[drop]\nmax = "5pp"\n')
    Path("e.json").write_text("{}")
    Path("link.npz").symlink_to("int8.npz")
    Path("out").mkdir()
    Path("out/r.toml").write_text("[[quantize]]\n")
    Path("out/report.json").write_text(json.dumps({"schema": "glyphpress/report/1"}))
    before = contents(tmp_path)
    ran = glyphpress(*words, "--force")
    assert (ran.code, ran.out) == (2, "")
    assert "which this command reads, so that not even --force" in ran.err
    assert ran.err.strip().count("\n") == 0
    assert contents(tmp_path) == before


def test_force_still_replaces_an_earlier_result(
    glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    linear_reader(Path("own.onnx"))
    Path("old.npz").write_text("an earlier result")
    assert glyphpress("evaluate", "own.onnx", *DATA, "-o", "old.npz", "--force").code == 0
    assert Path("old.npz").read_bytes().startswith(b"PK")
