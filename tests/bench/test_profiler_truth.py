"""The profiler against a bare loop: what it says an inference takes is what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.profiler_truth import overhead_ns, truth
from tests.fixtures.small_models import artifact, conv_net


def test_the_loop_adds_less_than_a_microsecond() -> None:
    assert any(overhead_ns() < 1000 for _ in range(3))


@pytest.mark.slow
def test_the_profilers_median_is_that_of_a_bare_loop(tmp_path: Path) -> None:
    # Wide enough that a microsecond is little. A busy machine moves single rounds, hardly their median.
    wide = artifact(conv_net(tmp_path / "wide.onnx", channels=256))
    assert any(abs(truth(wide, seed=seed).ratio - 1) < 0.03 for seed in range(3))
