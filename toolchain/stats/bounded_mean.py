"""Score interval for the mean of a bounded value that takes few different ones, such as a difference of costs.

Tango's interval (`paired_difference`) is its case of the values -1, 0 and 1: of all multinomial distributions whose
mean is the one asked about, the most likely one given the images stands for the truth, and the statistic is the
distance of the mean seen from it in standard errors of that truth. The constrained likelihood is A. B. Owen's (1988,
Biometrika 75:237-249; Empirical Likelihood, 2001, chapter 2), with the smallest and the largest possible value added
to those seen, so that a loss that was not seen yet remains possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolchain.core.errors import EvidenceError
from toolchain.stats.decision import FAIL_GAP, PASS_GAP, decided, images_to_decide, normal_quantile

Floats = NDArray[np.float64]

# Halvings of a bracket: it ends below the spacing of doubles near its larger end.
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Sample:
    """How often each value was seen. values: float64 [J], distinct. counts: float64 [..., J].

    low, high: the smallest and the largest value that an image can have, whether seen or not. Raises EvidenceError on
    counts without an image, and on values outside.
    """

    values: Floats
    counts: Floats
    low: float
    high: float

    def __post_init__(self) -> None:
        """Reject counts without a mean, and values outside the range that bounds it."""
        finite = np.isfinite(self.values).all() and np.isfinite(self.counts).all()
        if not finite or (self.counts < 0).any() or not (self.count >= 1).all():
            raise EvidenceError("a mean needs counts of finite values; evaluate some images first")
        if not self.low < self.high or self.values.min() < self.low or self.values.max() > self.high:
            raise EvidenceError(f"a value lies outside {self.low} to {self.high}, or these are no range")

    @classmethod
    def of(cls, values: ArrayLike, low: float, high: float) -> Sample:
        """Return the sample of one value an image."""
        distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
        if not distinct.size:
            raise EvidenceError("there is no value to take the mean of; evaluate some images first")
        return cls(distinct, counts.astype(np.float64), low, high)

    @property
    def count(self) -> Floats:
        """The number of images, float64 [...]."""
        return np.asarray(self.counts.sum(axis=-1), np.float64)

    @property
    def mean(self) -> Floats:
        """The mean value, float64 [...]."""
        return np.asarray(self.counts @ self.values / self.count, np.float64)

    @property
    def variance(self) -> Floats:
        """The variance of one image's value as seen, float64 [...]."""
        return np.asarray(self.counts @ self.values**2 / self.count - self.mean**2, np.float64)

    def mirrored(self) -> Sample:
        """Return the sample of the opposite values."""
        return Sample(-self.values, self.counts, -self.high, -self.low)


class Null:
    """The most likely shares of the values when the true mean is `mean`, strictly between low and high.

    They are n_j / (n + t (v_j - mean)), with the t that gives them that mean. Where no t within
    the allowed bracket does, t is the end of the bracket, and the value low or high takes the share missing from 1.
    """

    def __init__(self, sample: Sample, mean: ArrayLike) -> None:
        """Find the shares."""
        self._centre = np.asarray(mean, np.float64)
        n, below, above = np.broadcast_arrays(sample.count, sample.low - self._centre, sample.high - self._centre)
        self._distance = sample.values - self._centre[..., None]
        tilt = _tilt(sample.counts, n, self._distance, -n / above, -n / below)
        self._shares = _shares(sample.counts, n, self._distance, tilt)
        self._missing = np.maximum(1 - self._shares.sum(axis=-1), 0.0)
        self._end = np.where(tilt < 0, above, below)

    def moment(self, power: int) -> Floats:
        """Return that central moment of one image's value, float64 [...]."""
        return self._mean(lambda distance, _centre: distance**power)

    @property
    def step(self) -> Floats:
        """The mean of the absolute values under this truth, each weighted by itself; 0 where all values are 0."""
        values = self._mean(lambda distance, centre: np.abs(distance + centre))
        squares = self._mean(lambda distance, centre: (distance + centre) ** 2)
        return np.asarray(np.divide(squares, values, out=np.zeros_like(squares), where=values > 0), np.float64)

    def _mean(self, of: Callable[[Floats, Floats], Floats]) -> Floats:
        observed = (self._shares * of(self._distance, self._centre[..., None])).sum(axis=-1)
        return np.asarray(observed + self._missing * of(self._end, self._centre), np.float64)


def null_variance(sample: Sample, mean: ArrayLike) -> Floats:
    """Return the variance of one image's value when the true mean is `mean`, strictly between low and high."""
    return Null(sample, mean).moment(2)


def _shares(counts: Floats, n: Floats, distance: Floats, tilt: Floats) -> Floats:
    # At a solution every n_j / share is at least 1, so only the ends of the bracket meet the smallest divisor.
    return np.asarray(counts / np.maximum(n[..., None] + tilt[..., None] * distance, 1e-200), np.float64)


def _tilt(counts: Floats, n: Floats, distance: Floats, least: Floats, most: Floats) -> Floats:
    """Return the t between least and most where the mean distance, which falls with t, is 0, or else the nearer end."""

    def excess(tilt: Floats) -> Floats:
        return np.asarray((_shares(counts, n, distance, tilt) * distance).sum(axis=-1), np.float64)

    at_least, at_most = excess(least) <= 0, excess(most) >= 0
    low, high, tilt = least, most, np.zeros(np.broadcast_shapes(n.shape, distance.shape[:-1]))
    for _ in range(_HALVINGS):
        mean_distance = excess(tilt)
        low, high = np.where(mean_distance > 0, tilt, low), np.where(mean_distance > 0, high, tilt)
        # Newton's step, halving the bracket where it would leave it.
        with np.errstate(divide="ignore", invalid="ignore"):  # at an end, or of a sample that lies at its mean
            slopes = _shares(counts, n, distance, tilt) * distance / (n[..., None] + tilt[..., None] * distance)
            step = tilt + mean_distance / (slopes * distance).sum(axis=-1)
        following = np.where((step > low) & (step < high), step, (low + high) / 2)
        if np.all(at_least | at_most | (np.abs(following - tilt) <= 1e-15 * np.abs(tilt))):
            break
        tilt = following
    return np.where(at_least, least, np.where(at_most, most, tilt))


def score(sample: Sample, mean: ArrayLike) -> Floats:
    """Return the statistic, standard normal when the true mean is `mean`; it falls as `mean` grows."""
    centre = np.asarray(mean, np.float64)
    distance, spread = sample.mean - centre, np.sqrt(null_variance(sample, centre) / sample.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / spread)


def decide(sample: Sample, margin: ArrayLike, confidence: float = 0.95) -> NDArray[np.str_]:
    """Return an `Outcome` for each sample, as `paired_difference.decide` does."""
    null, centre = Null(sample, margin), np.asarray(margin, np.float64)
    moments = sample.count, null.moment(2), null.moment(3)
    return decided(sample.count * (sample.mean - centre), *moments, step=null.step, confidence=confidence)


def upper_bound(sample: Sample, confidence: float = 0.95) -> Floats:
    """Return the one-sided upper bound of the mean: the largest that the images do not contradict."""
    z = normal_quantile(confidence)
    low, high = sample.mean, np.full(sample.mean.shape, sample.high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):  # where the mean already is the largest value
            inside = score(sample, middle) + z > 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(high, np.float64)


def lower_bound(sample: Sample, confidence: float = 0.95) -> Floats:
    """Return the one-sided lower bound of the mean."""
    return -upper_bound(sample.mirrored(), confidence)


def images_needed(sample: Sample, margin: float, confidence: float = 0.95) -> int | None:
    """Return how many images like these would tell one sample's mean from the margin; None where no number does."""
    null, room = Null(sample, margin), margin - float(sample.mean)
    gap = (PASS_GAP if room > 0 else FAIL_GAP) * float(null.step)
    variances = float(null.moment(2)), float(sample.variance)
    return images_to_decide(room, *variances, judged=int(sample.count), gap=gap, confidence=confidence)
