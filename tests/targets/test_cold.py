"""A cold start is measured in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targets.artifact import Artifact
from targets.cold import cold_start
from targets.errors import RunFailed


def test_both_runtimes_start_cold(
    onnx_artifact: Artifact, tflite_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for artifact, name in ((onnx_artifact, "ort-cpu"), (tflite_artifact, "litert-cpu")):
        cold = cold_start(artifact, name)
        assert 10_000 < cold.load_ns < 20e9, "between 10 us and 20 s"
        assert 1_000 < cold.first_run_ns < 20e9


def test_what_goes_wrong_there_is_one_line_here(onnx_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"fresh process could not open it.*47 classes") as caught:
        cold_start(replace(onnx_artifact, classes=("a",) * 47), "ort-cpu")
    assert "\n" not in str(caught.value)
