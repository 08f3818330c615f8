"""What is LiteRT's own: integer borders, two sets of kernels, files that fix their batch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets import catalog
from targets.artifact import Artifact
from targets.errors import ArtifactError, RunFailed
from targets.litert.cpu import LiteRtCpu, LiteRtReference
from targets.metadata import describe
from targets.session import TimingPlan
from tests.fixtures.small_models import glyphs

ROOT = Path(__file__).resolve().parents[3]


def test_both_kernels_agree(tflite_artifact: Artifact) -> None:
    with LiteRtCpu().open(tflite_artifact) as fast, LiteRtReference().open(tflite_artifact) as plain:
        np.testing.assert_allclose(fast.run(glyphs(10)), plain.run(glyphs(10)), atol=1e-4)
        assert fast.facts.target != plain.facts.target


def test_the_reference_kernels_are_others(int8_artifact: Artifact) -> None:
    plan = TimingPlan(min_runs=50, min_seconds=0)
    with LiteRtCpu().open(int8_artifact) as fast, LiteRtReference().open(int8_artifact) as plain:
        slow, quick = plain.time(plan).samples_ns, fast.time(plan).samples_ns
        steps = np.abs(fast.run(glyphs(100)) - plain.run(glyphs(100))) / fast.sink.scale
    assert slow.min() > 2 * quick.min(), "loops written for reading, against XNNPACK"
    assert steps.max() < 1.5, "a step of the output at most, where a rounding falls the other way"


def test_int8_borders_are_quantized_and_dequantized(tflite_artifact: Artifact, int8_artifact: Artifact) -> None:
    assert (int8_artifact.inputs[0].dtype, int8_artifact.outputs[0].dtype) == ("int8", "int8")
    with LiteRtCpu().open(tflite_artifact) as exact, LiteRtCpu().open(int8_artifact) as session:
        floats, steps = exact.run(glyphs(50)), session.run(glyphs(50))
    # The quantizer's ranges clip the largest logits; a scale or zero point forgotten would move all of them.
    assert np.abs(floats - steps).mean() < 0.05 * np.ptp(floats)


def test_a_batch_other_than_the_files_is_refused_in_timing(tflite_artifact: Artifact) -> None:
    with LiteRtCpu().open(tflite_artifact) as session, pytest.raises(RunFailed, match="fixed at 1"):
        session.time(TimingPlan(batch=4))


def test_a_process_that_opens_its_first_file_prints_nothing(tflite_artifact: Artifact) -> None:
    program = (
        "from pathlib import Path\nfrom targets.metadata import adopt\nfrom targets.litert.cpu import LiteRtCpu\n"
        "from targets.preprocess import Preprocess\n"
        f"own = adopt(Path({str(tflite_artifact.path)!r}), preprocess=Preprocess(), classes=tuple('0123456789'))\n"
        "LiteRtCpu().open(own)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_xnnpack_other_kernels_answer_the_same(tflite_artifact: Artifact) -> None:
    with (
        catalog.get("litert-cpu").open(tflite_artifact) as fast,
        LiteRtCpu(xnnpack="off").open(tflite_artifact) as builtin,
    ):
        np.testing.assert_allclose(fast.run(glyphs(20)), builtin.run(glyphs(20)), atol=1e-4)
        assert "XNNPACK" in fast.facts.placement
        assert set(builtin.facts.placement) == {"builtin"}
        assert builtin.facts.target == "litert-cpu,xnnpack=off"


def test_row33_a_file_that_claims_huge_tensors_is_refused_before_they_are_allocated(
    tflite_artifact: Artifact, tmp_path: Path
) -> None:
    from toolchain.formats.tflite.file import packed, parsed

    model = parsed(tflite_artifact.path.read_bytes())
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 28, 28, 1 << 20]
    huge = tmp_path / "huge.tflite"
    huge.write_bytes(packed(model, 1 << 20))
    with pytest.raises(ArtifactError, match=r"its tensors take 3,2.* over the limit"):
        LiteRtCpu().open(replace(tflite_artifact, path=huge))
    with pytest.raises(ArtifactError, match="over the limit"):
        describe(huge)
