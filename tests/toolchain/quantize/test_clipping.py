from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import StageError
from toolchain.formats.trace import Values
from toolchain.quantize.clipping import BINS, TensorStatistics, choose_range, collect_statistics
from toolchain.recipe import Calibration

METHODS: tuple[Calibration, ...] = ("min-max", "moving-average", "percentile", "entropy", "mse")


def seen(*images: np.ndarray) -> TensorStatistics:
    def run() -> Iterator[Values]:
        yield from ({"x": image.astype(np.float32)} for image in images)

    return collect_statistics(run, "m.onnx")["x"]


def bounds(values: np.ndarray, method: Calibration, percentile: float = 99.0) -> tuple[float, float]:
    return choose_range(seen(values), method, percentile=percentile, levels=256)


def rounded_error(values: np.ndarray, low: float, high: float) -> float:
    """As onnxruntime and LiteRT round, written anew."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    back = (np.clip(np.rint(values / scale + zero), 0, 255) - zero) * scale
    return float(np.square(values - back).mean())


NORMAL = np.random.default_rng(0).normal(0, 1, 200_000)
RELU = np.maximum(NORMAL, 0)


def test_every_value_is_in_its_bin_and_zeros_are_apart() -> None:
    found = seen(np.array([[-1.0, 0.0, 0.0]]), np.array([[3.0, 2.999, 0.0]]))
    assert (found.lowest, found.highest, found.zeros) == (-1, 3, 3)
    assert found.counts.sum() == 3
    assert (found.counts[0], found.counts[-1]) == (1, 2)
    assert np.isclose(found.edges[1] - found.edges[0], 4 / BINS)


def test_moving_average_follows_each_images_extremes() -> None:
    found = choose_range(
        seen(*(np.array([-x, x]) for x in (1.0, 2.0, 10.0))), "moving-average", percentile=99, levels=256
    )
    assert found[1] == pytest.approx(0.95 * (0.95 * 1 + 0.05 * 2) + 0.05 * 10)
    assert found[0] == -found[1]


@pytest.mark.parametrize("values", [NORMAL, RELU], ids=["signed", "relu"])
@pytest.mark.parametrize("percentile", [90.0, 99.9])
def test_percentile_is_that_of_all_values(values: np.ndarray, percentile: float) -> None:
    tail = (100 - percentile) / 2
    exact = np.percentile(values, [tail, 100 - tail])
    assert bounds(values, "percentile", percentile) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("values", [NORMAL, RELU, -RELU], ids=["signed", "relu", "negative"])
def test_mse_rounds_real_values_better_than_their_extremes_do(values: np.ndarray) -> None:
    widest = rounded_error(values, min(values.min(), 0), max(values.max(), 0))
    assert rounded_error(values, *bounds(values, "mse")) < 0.95 * widest


def test_entropy_gives_up_an_outlier_and_nothing_of_an_even_spread() -> None:
    low, high = bounds(np.append(NORMAL, 40.0), "entropy")
    assert -10 < low < -2
    assert 2 < high < 10
    assert bounds(np.linspace(0.001, 5, 100_000), "entropy") == pytest.approx((0, 5), abs=0.01)


@settings(max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.sampled_from(METHODS),
    st.sampled_from([256, 65536]),
)
def test_a_range_holds_zero_and_nothing_that_was_never_seen(
    values: list[float], method: Calibration, levels: int
) -> None:
    low, high = choose_range(seen(np.array(values)), method, percentile=99, levels=levels)
    if any(values):
        assert min(*values, 0) - 1e-6 <= low <= 0 <= high <= max(*values, 0) + 1e-6
    else:
        assert (low, high) == (0, 1)


def test_a_tensor_that_is_not_finite_is_named() -> None:
    with pytest.raises(StageError, match=r"m\.onnx: tensor x holds NaN"):
        seen(np.array([1.0, np.nan]))
