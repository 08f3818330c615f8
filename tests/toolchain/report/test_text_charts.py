"""Pictures of characters: each sample is counted once, and every line fits a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.session import TimingPlan
from tests.fixtures.saved_runs import made_timings
from tests.fixtures.small_models import artifact, conv_net
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.report.text_charts import histograms


@pytest.mark.parametrize("kind", ["spread", "one value", "two values"])
def test_a_histogram_counts_every_sample_once(tmp_path: Path, kind: str) -> None:
    timings = made_timings(50_000)
    if kind != "spread":
        samples = np.full(400, 50_000, np.int64)
        samples[: 3 * (kind == "two values")] = 90_000
        timings = replace(timings, samples_ns=samples)
    file = MeasuredFile(artifact(conv_net(tmp_path / "a.onnx")), "ort-cpu", timings.facts, timings)
    drawn = histograms(Measurements((file, replace(file, timings=None)), TimingPlan(), 1, 20, 0))
    heading, *lines = drawn.split("\n\n")[0].splitlines()
    assert heading == "a.onnx on ort-cpu, 400 samples"
    counts = [int(count) for line in lines for count in re.findall(r"(?:#|above ) (\d+)", line)]
    assert sum(counts) == 400
    assert max(map(len, lines)) <= 80
    assert drawn.endswith("no latencies, so no histogram")
