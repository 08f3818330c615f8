"""A cold start is measured in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed
from tests.fixtures.small_models import artifact, conv_net, integer_net


def test_both_runtimes_start_cold(
    onnx_artifact: Artifact, tflite_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for model, name in ((onnx_artifact, "ort-cpu"), (tflite_artifact, "litert-cpu")):
        cold = catalog.get(name).cold_start(model)
        assert 10_000 < cold.load_ns < 20e9, "between 10 us and 20 s"
        assert 1_000 < cold.first_run_ns < 20e9


def test_what_goes_wrong_there_is_one_line_here(onnx_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"47 classes") as caught:
        catalog.get("ort-cpu").cold_start(replace(onnx_artifact, classes=("a",) * 47))
    assert "\n" not in str(caught.value)


def test_what_a_file_weighs_is_in_the_peak_and_what_python_weighs_is_not(
    onnx_artifact: Artifact, tflite_artifact: Artifact, tmp_path: Path
) -> None:
    heavy = artifact(conv_net(tmp_path / "heavy.onnx", channels=1024))
    weights = heavy.size - onnx_artifact.size
    small = catalog.get("ort-cpu").peak_memory(onnx_artifact)
    assert 500_000 < small < 30_000_000, "importing onnxruntime alone takes more than 30 MB"
    assert 0.9 * weights < catalog.get("ort-cpu").peak_memory(heavy) - small < 5 * weights
    assert 100_000 < catalog.get("litert-cpu").peak_memory(tflite_artifact) < 30_000_000
    # Our reading of its scales, by a package of 20 MB, is no part of the session.
    whole = artifact(integer_net(tmp_path / "integer.onnx"))
    assert abs(catalog.get("ort-cpu").peak_memory(whole) - small) < 5_000_000


def test_a_file_that_cannot_be_opened_has_no_memory(onnx_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"47 classes"):
        catalog.get("ort-cpu").peak_memory(replace(onnx_artifact, classes=("a",) * 47))
