"""The null target plays exactly what it was told."""

from __future__ import annotations

import numpy as np
import pytest

from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.null import NullTarget
from targets.session import TimingPlan
from tests.fixtures.small_models import glyphs


def test_rows_are_answered_in_order_over_several_calls(onnx_artifact: Artifact) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)
    with NullTarget(logits=rows).open(onnx_artifact) as session:
        got = np.concatenate([session.run(glyphs(4)), session.run(glyphs(2)), session.run(glyphs(1))])
    np.testing.assert_array_equal(got, rows[[0, 1, 2, 3, 4, 5, 0]])


def test_a_callable_sees_the_images(onnx_artifact: Artifact) -> None:
    with NullTarget(logits=lambda images: images[:, 0, :10]).open(onnx_artifact) as session:
        np.testing.assert_array_equal(session.run(glyphs(3)), glyphs(3)[:, 0, :10])


def test_without_a_script_the_answer_is_the_images_own(onnx_artifact: Artifact) -> None:
    with NullTarget().open(onnx_artifact) as session, NullTarget(seed=1).open(onnx_artifact) as other:
        np.testing.assert_array_equal(session.run(glyphs(4))[2:], session.run(glyphs(4)[2:]))
        assert not np.array_equal(session.run(glyphs(4)), other.run(glyphs(4)))


def test_a_script_of_another_width_is_an_error(onnx_artifact: Artifact) -> None:
    with NullTarget(logits=np.zeros((3, 4))).open(onnx_artifact) as session, pytest.raises(RunFailed, match="script"):
        session.run(glyphs(3))


def test_times_are_scripted_and_repeat(onnx_artifact: Artifact) -> None:
    plan = TimingPlan(min_runs=50, min_seconds=0.1)
    with NullTarget(times=200_000, seed=3).open(onnx_artifact) as session:
        first = session.time(plan)
    with NullTarget(times=200_000, seed=3).open(onnx_artifact) as repeated:
        np.testing.assert_array_equal(first.samples_ns, repeated.time(plan).samples_ns)
    assert first.samples_ns.sum() >= 0.1 * 1e9 * 0.99
    assert np.median(first.samples_ns) == pytest.approx(200_000, rel=0.02)
    with NullTarget(times=lambda random, n: np.full(n, 7)).open(onnx_artifact) as exact:
        assert set(exact.time(TimingPlan(min_runs=5, max_runs=9)).samples_ns) == {7}
