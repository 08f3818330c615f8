"""The page of a profile, as `profile --out` writes it, in a real Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from targets.metadata import save_sidecar
from tests.fixtures.pages import check_page
from tests.fixtures.reports import pressed_report
from tests.fixtures.small_models import artifact, conv_net
from tests.fixtures.viewed_pages import Viewer
from toolchain.report.page.viewer import PAGE

Program = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [artifact(conv_net(tmp_path / f"{name}.onnx", channels=n)) for name, n in (("a<b>", 16), ("c&d", 4))]
    for one in made:
        save_sidecar(one)
    return [one.path for one in made]


def test_a_profile_is_a_page_with_table_samples_and_operators(
    glyphpress: Program, files: list[Path], tmp_path: Path, viewer: Viewer
) -> None:
    out = tmp_path / "profile"
    done = glyphpress("profile", *files, "--seconds", "20ms", "--runs", "100", "--per-op", "--out", out)
    assert done.code == 0, done.err
    assert f"page: {out / PAGE}, with the times of operators" in done.out
    assert {path.name for path in out.iterdir()} == {PAGE, "report.json", "report.md", "report.csv", "timings.npz"}
    page = check_page((out / PAGE).read_text(encoding="utf-8"))
    for fact in ("Profile of 2 files", "a<b>.onnx", "c&d.onnx", "Time by operator", "Conv", "onnxruntime", "p95"):
        assert fact in page.text
    assert "as a<b>.onnx on ort-cpu." in page.text
    assert viewer.faults(out / PAGE, width=390, scheme="light") == []
    assert json.loads((out / "report.json").read_text())["schema"] == "glyphpress/profile/1"
    again = glyphpress("report", out)
    assert again.code == 0, again.err
    assert "c&d.onnx" in again.out
    shutil.copytree(out, tmp_path / "later")
    compared = glyphpress("report", out, tmp_path / "later")
    assert compared.code == 0, compared.err
    assert sum(line.startswith("c&d.onnx") for line in compared.out.splitlines()) == 2
    pressed_report(2).save(tmp_path / "press" / "report.json")
    for words, said in ((("-o", tmp_path / "p.html"), "its report.html"), ((tmp_path / "press",), "only of profiles")):
        mixed = glyphpress("report", out, *words)
        assert (mixed.code, mixed.out) == (2, "")
        assert said in mixed.err
    refused = glyphpress("profile", files[0], "--out", out)
    assert refused.code == 2
    assert "--force" in refused.err
