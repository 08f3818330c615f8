"""Run a model on labelled images under one Preprocess: which it classifies correctly, and with what likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, Labels
from targets.preprocess import ORIENTATIONS, Layout, Preprocess
from toolchain.core.errors import CheckpointError

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Reading = tuple[str, bool, int]

# Mean and standard deviation that published models were trained with: none, -1 to 1, MNIST's, EMNIST's.
NORMALISATIONS = ((0.0, 1.0), (0.5, 0.5), (0.1307, 0.3081), (0.1722, 0.3309))
_BATCH = 200
# Pixels of 0-255 in a model trained on 0-1 give likelihoods of e^-100, which would dominate any test.
_LOWEST_LIKELIHOOD = -20.0
_TEMPERATURES = np.geomspace(0.1, 1000, 41)


def candidates(layout: Layout) -> Iterable[Preprocess]:
    """Yield every plausible Preprocess with label offset 0, the likeliest first."""
    for mean, std in NORMALISATIONS:
        for invert in (False, True):
            for orientation in ORIENTATIONS:
                yield Preprocess(orientation, "0-1", mean, std, invert, layout)
    for invert in (False, True):
        for orientation in ORIENTATIONS:
            yield Preprocess(orientation, "0-255", 0.0, 1.0, invert, layout)


def options_of(preprocess: Preprocess) -> str:
    """Return the command-line options for a Preprocess."""
    parts = [f"--orientation {preprocess.orientation}", f"--scale {preprocess.scale}"]
    if (preprocess.mean, preprocess.std) != (0.0, 1.0):
        parts.append(f"--mean {preprocess.mean:g} --std {preprocess.std:g}")
    parts += ["--invert"] * preprocess.invert + [f"--label-offset {preprocess.label_offset}"] * (
        preprocess.label_offset > 0
    )
    return " ".join(parts)


@dataclass(frozen=True)
class PreprocessTrial:
    """A model's answers under one Preprocess.

    predictions: int64 [N], -1 where an answer was not finite. correct: bool [N]. likelihood: float64 [N], the
    log-likelihood of the true class in nats, at the temperature that fits these logits best. raw_likelihood: the
    same for the logits themselves, no lower than -20.
    """

    preprocess: Preprocess
    predictions: NDArray[np.int64]
    correct: NDArray[np.bool_]
    likelihood: NDArray[np.float64]
    raw_likelihood: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Return the share of correct answers."""
        return float(self.correct.mean())

    @property
    def rank(self) -> tuple[float, float]:
        """Return what trials are ordered by: accuracy, then mean likelihood."""
        return self.accuracy, float(self.likelihood.mean())

    @property
    def reading(self) -> Reading:
        """Return the part of the Preprocess that decides which glyph is read."""
        return reading_of(self.preprocess)


@dataclass(frozen=True)
class LabelledRun:
    """Labelled images and the model to run on them; see `preprocess_search.search`.

    answered: the logits of each Preprocess on the first images, so that no image is run twice.
    """

    run: Run
    images: Images
    labels: Labels
    classes: int
    answered: dict[Preprocess, NDArray[np.float32]] = field(default_factory=dict)

    def at(self, preprocesses: Iterable[Preprocess], count: int, *, every_offset: bool) -> list[PreprocessTrial]:
        """Return the trials on the first `count` images, the best first.

        every_offset: try each label offset that the model's width allows, rather than the one of the Preprocess.
        """
        trials = [trial for preprocess in preprocesses for trial in self._trials(preprocess, count, every_offset)]
        return sorted(trials, key=lambda trial: trial.rank, reverse=True)

    def _trials(self, preprocess: Preprocess, count: int, every_offset: bool) -> Iterable[PreprocessTrial]:
        logits = self._logits(replace(preprocess, label_offset=0), count)
        extra_columns = logits.shape[1] - self.classes
        if extra_columns not in (0, 1):
            raise CheckpointError(
                f"the model answers {logits.shape[1]} columns for {self.classes} classes; choose the model's "
                "classes with --classes, or give the --data it was trained on"
            )
        for offset in range(extra_columns + 1) if every_offset else (preprocess.label_offset,):
            yield self._trial(replace(preprocess, label_offset=offset), logits[:, offset : offset + self.classes])

    def _logits(self, preprocess: Preprocess, count: int) -> NDArray[np.float32]:
        earlier = self.answered.get(preprocess)
        answered_count = 0 if earlier is None else len(earlier)
        if answered_count < count:
            inputs = preprocess.apply(self.images[answered_count:count])
            parts = [self.run(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
            self.answered[preprocess] = np.concatenate([*([] if earlier is None else [earlier]), *parts])
        return self.answered[preprocess][:count]

    def _trial(self, preprocess: Preprocess, logits: NDArray[np.float32]) -> PreprocessTrial:
        labels = self.labels[: len(logits)]
        finite = np.isfinite(logits).min(axis=1)
        finite_logits = np.where(finite[:, None], logits, 0).astype(np.float64)
        predictions: NDArray[np.int64] = np.where(finite, finite_logits.argmax(axis=1), -1)
        tempered = [_log_likelihood(finite_logits / temperature, labels) for temperature in _TEMPERATURES]
        return PreprocessTrial(
            preprocess,
            predictions,
            predictions == labels,
            max(tempered, key=lambda likelihood: float(likelihood.mean())),
            np.maximum(_log_likelihood(finite_logits, labels), _LOWEST_LIKELIHOOD),
        )


def _log_likelihood(logits: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    likelihood: NDArray[np.float64] = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return likelihood


def reading_of(preprocess: Preprocess) -> Reading:
    """Return what decides which glyph is read: orientation, inversion and label offset, but not the scaling."""
    return preprocess.orientation, preprocess.invert, preprocess.label_offset
