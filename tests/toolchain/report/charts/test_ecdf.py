"""The distribution of latencies: curves and marks at the samples' own quantiles."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import log

import numpy as np
import pytest

from targets.session import Timings
from tests.fixtures.svg import HOSTILE, Picture
from tests.fixtures.timings import flat_timings, noisy_timings
from toolchain.report.charts.ecdf import ecdf_svg


def timings(samples: list[int], inner: int = 1) -> Timings:
    return replace(flat_timings("a" * 64, 1), samples_ns=np.array(samples, np.int64), inner=inner)


def latency_at(picture: Picture, x: float) -> float:
    """Return the nanoseconds of a place, by the first and the last tick of the log axis."""
    latencies = [one for one in picture.texts() if one.text.endswith(" us")]
    ticks = [one for one in latencies if one.y == min(other.y for other in latencies)]
    (low, high), (left, right) = (
        [1e3 * float(one.text[:-3]) for one in (ticks[0], ticks[-1])],
        [ticks[0].x, ticks[-1].x],
    )
    return low * (high / low) ** ((x - left) / (right - left))


@pytest.mark.parametrize("width", [358, 720])
def test_the_marks_stand_at_the_quantiles_on_the_axis(width: int) -> None:
    random = np.random.default_rng(0)
    files = [(f"{name}.onnx", noisy_timings(random, median=median)) for name, median in (("a", 5e4), ("b", 2e5))]
    picture = Picture(ecdf_svg(files, width=width)).check()
    marks = picture.all("circle")
    assert len(marks) == 6
    expected = [times.percentile(q) for _, times in files for q in (50, 90, 99)]
    for mark, latency in zip(marks, expected, strict=True):
        assert log(latency_at(picture, float(mark.get("cx", 0)))) == pytest.approx(log(latency or 0), abs=0.02)
    heights = [float(mark.get("cy", 0)) for mark in marks[:3]]
    assert heights == sorted(heights, reverse=True)
    assert "a.onnx, 4,000 samples: 50 % within" in picture.title


def test_the_curve_goes_through_the_shares_of_the_samples() -> None:
    picture = Picture(ecdf_svg([("a.onnx", timings([1000 * k for k in range(100, 1100)]))]))
    zero, half = picture.text("0 %").y - 1, picture.text("50 %").y - 4
    track = [tuple(map(float, pair.split(","))) for pair in picture.all("polyline")[0].get("points", "").split()]
    across = np.interp(-half, [-y for _, y in track], [x for x, _ in track])
    assert latency_at(picture, float(across)) == pytest.approx(600_000, rel=0.01)
    assert len(track) < 40, "what is nearly straight needs no points"
    assert track[0][1] == pytest.approx(zero, abs=0.2)
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in itertools.pairwise(track))


def test_few_samples_are_steps_without_quantiles_that_they_cannot_carry() -> None:
    picture = Picture(ecdf_svg([("few.onnx", timings([100_000, 110_000, 130_000, 200_000]))])).check()
    (steps,) = [one for one in picture.all("path") if one.get("d", "").count("V") == 4 and "H" in one.get("d", "")]
    assert steps.get("d", "").count("H") == 4
    assert not picture.all("circle")
    assert picture.words.count("-") == 3
    assert "-: too few single inferences to tell" in picture.words


def test_means_of_inner_repeats_have_a_median_and_no_tail() -> None:
    picture = Picture(ecdf_svg([("a.onnx", timings(list(range(100_000, 101_000)), inner=8))]))
    assert len(picture.all("circle")) == 1
    assert picture.words.count("-") == 2


def test_slow_inferences_beyond_the_picture_are_counted() -> None:
    samples = [*range(100_000, 102_000), 90_000_000]
    picture = Picture(ecdf_svg([("a.onnx", timings(samples))])).check()
    assert "1 inference of 2,001 took longer than is drawn." in picture.words
    assert "90.0 ms" in picture.words, "the table has the slowest"


@pytest.mark.parametrize("samples", [[], [5000], [5000] * 40])
def test_no_sample_or_equal_ones(samples: list[int]) -> None:
    picture = Picture(ecdf_svg([("a.onnx", timings(samples))] if samples else [])).check()
    assert ("No file was timed." in picture.words) == (not samples)


def test_a_hostile_name_stays_text_and_eight_files_stay_small() -> None:
    random = np.random.default_rng(0)
    files = [(f"{HOSTILE}{k}", noisy_timings(random, median=1e5 * (1 + k / 9))) for k in range(8)]
    svg = ecdf_svg(files)
    assert not Picture(svg).check().all("script")
    assert len(svg) < 18_000
    styles = {(one.get("stroke"), one.get("stroke-dasharray")) for one in Picture(svg).all("polyline")}
    assert len(styles) == 8, "no two curves look alike"
