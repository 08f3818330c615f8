"""Find a model's preprocess by running it on labelled images under every plausible Preprocess.

The orientation, the ink's colour and the label offset change which glyph a model reads, so the best must classify
significantly more images correctly than the runner-up (exact McNemar test on the same images). The scaling changes
little on many networks, so it is chosen by the likelihood of the true class, with paired t-tests: after temperature
scaling (Guo et al. 2017; a lower contrast alone makes a network less confident) or on the unscaled logits. If a tie
remains, the search raises an error that gives the options of each candidate. Two kinds of tie are no error: scalings
that give the same answer on 98 % of the images, and means and standard deviations on the same scale. There the likelier
is used, and the others are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, Labels
from targets.preprocess import ORIENTATIONS, Preprocess
from toolchain.core.errors import CheckpointError, PreprocessUnknown

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Reading = tuple[str, bool, int]
"""What decides which glyph is read: orientation, inversion and label offset, but not the scaling."""

# Mean and standard deviation that published models were trained with: none, -1 to 1, MNIST's, EMNIST's.
NORMALISATIONS = ((0.0, 1.0), (0.5, 0.5), (0.1307, 0.3081), (0.1722, 0.3309))
ROUNDS = (32, 100, 400)
"""Numbers of images on which candidates are tried; the last round takes all images."""
SEARCH_IMAGES = 1500
"""More labelled images than this do not improve a search; callers draw them at random."""
LEAST_IMAGES = 50
SIGNIFICANCE = 0.01
AGREEMENT = 0.98
_MOST_CANDIDATES = 12
_BATCH = 200
# Pixels of 0-255 in a model trained on 0-1 give likelihoods of e^-100, which would dominate any test.
_LOWEST_LIKELIHOOD = -20.0
_TEMPERATURES = np.geomspace(0.1, 1000, 41)


SCALINGS = (*(Preprocess(scale="0-1", mean=mean, std=std) for mean, std in NORMALISATIONS), Preprocess(scale="0-255"))


class PreprocessTied(PreprocessUnknown):
    """The images do not decide between several ways to take them; `accuracy` is that of the best of them."""

    def __init__(self, message: str, accuracy: float = 0.0) -> None:
        """Message: one line. accuracy: 0 to 1."""
        super().__init__(message)
        self.accuracy = accuracy


def _candidates(scalings: Iterable[Preprocess]) -> Iterable[Preprocess]:
    """Yield every plausible Preprocess with label offset 0, the likeliest first."""
    for scaling, invert, orientation in product(scalings, (False, True), ORIENTATIONS):
        yield replace(scaling, invert=invert, orientation=orientation)


def options_of(preprocess: Preprocess) -> str:
    """Return the command-line options for a Preprocess."""
    parts = [f"--orientation {preprocess.orientation}", f"--scale {preprocess.scale}"]
    if (preprocess.mean, preprocess.std) != (0.0, 1.0):
        parts.append(f"--mean {preprocess.mean:g} --std {preprocess.std:g}")
    if preprocess.invert:
        parts.append("--invert")
    if preprocess.label_offset:
        parts.append(f"--label-offset {preprocess.label_offset}")
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
        return self.preprocess.orientation, self.preprocess.invert, self.preprocess.label_offset


@dataclass(frozen=True)
class LabelledRun:
    """Labelled images and the model to run on them; see `search`.

    answered: the logits of each Preprocess on the first images, so that no image runs twice.
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


@dataclass(frozen=True)
class Tried:
    """A Preprocess and its results: accuracy (0 to 1), mean log-likelihood (nats) of the true class."""

    preprocess: Preprocess
    accuracy: float
    log_likelihood: float
    images: int


@dataclass(frozen=True)
class PreprocessFinding:
    """The Preprocess that was found; `runner_up` is the best with another orientation, inversion or label offset.

    rescaled: the best other scaling with the winner's orientation, inversion and label offset, on the images that it
    was tried on. images: how many the winner was tried on; the runner-up is tried on no more once it is beaten. table:
    all that was tried, the best first, each on the images of the last round it reached. equivalent: scalings with
    nearly the same answers. undecided: other means and standard deviations under which the model answers differently,
    but is neither significantly less accurate nor less likely; the winner is the likeliest of them. stored: has the
    mean and std that the checkpoint stores.
    """

    winner: Preprocess
    accuracy: float
    runner_up: Preprocess
    runner_up_accuracy: float
    images: int
    table: tuple[Tried, ...]
    equivalent: tuple[Preprocess, ...] = ()
    undecided: tuple[Preprocess, ...] = ()
    stored: Preprocess | None = None
    rescaled: Tried | None = None

    def sentence(self) -> str:
        """Return the note for the file's history: the winner and why it was chosen."""
        return f"{self.winner} ({self.evidence})"

    @property
    def evidence(self) -> str:
        """Return why the winner was chosen, which a press prints beside it."""
        scalings = " or ".join(str(preprocess).partition(", ")[2] for preprocess in self.equivalent)
        equivalent = f"; nearly the same: {scalings}" if scalings else ""
        options = " or ".join(f"`{options_of(other)}`" for other in self.undecided)
        tied = f"; a tie of mean and std, of which this is the likelier: the others are {options}" if options else ""
        runner_up = f"{self.runner_up_accuracy:.1%}, {self.runner_up}"
        compared, rescaled = f"next best {runner_up}", self.rescaled
        if rescaled and rescaled.accuracy >= self.runner_up_accuracy:
            compared = f"{self._beside(rescaled)}; other turn, ink or labels {runner_up}"
        summary = f"found: {self.accuracy:.1%} right; {compared}; {self.images} images"
        return f"{summary}{equivalent}{tied}{self._stored()}"

    def _beside(self, other: Tried) -> str:
        """Return how another scaling did; where it has more images right, why it was not taken and what takes it."""
        if other.accuracy <= self.accuracy:
            return f"next best {other.accuracy:.1%}, {other.preprocess}"
        less = any(row.preprocess == self.winner and row.log_likelihood > other.log_likelihood for row in self.table)
        why = f"no significant gain{', and less sure of the right class' * less}; `{options_of(other.preprocess)}`"
        return f"{other.accuracy:.1%} as {other.preprocess} ({why} takes it)"

    def _stored(self) -> str:
        if self.stored is None:
            return ""
        numbers = f"mean {self.stored.mean:g} std {self.stored.std:g}"
        if _scaled_as(self.stored, self.winner) == self.winner:
            return f"; {numbers}, as the checkpoint says"
        return f"; the checkpoint says {numbers}, which fits worse"


def search(
    run: Run,
    images: Images,
    labels: Labels,
    *,
    classes: tuple[str, ...],
    likely: Preprocess | None = None,
    stored: Preprocess | None = None,
    scalings: Iterable[Preprocess] = SCALINGS,
) -> PreprocessFinding:
    """Find the Preprocess under which `run` classifies the images best.

    run: float32 [N, 1, 28, 28] to logits [N, len(classes) or one more]. images: uint8 [N, 28, 28], upright, in
    random order; 32 are tried under every candidate, more only under those still close. labels: int64 [N]. likely: of
    a file that this one is to replace; its scaling is used unless another is significantly more accurate. stored: of
    the checkpoint itself; its scaling is tried too, and used unless another is significantly likelier. scalings: those
    that are tried in every orientation.

    Raises PreprocessUnknown on fewer than 50 images, when the best is near chance, and PreprocessTied on a tie of
    anything but mean and std, which it lists.
    """
    if len(images) < LEAST_IMAGES:
        raise PreprocessUnknown(
            f"{len(images)} labelled images are too few to find the preprocess; give {LEAST_IMAGES} or options"
        )
    labelled = LabelledRun(run, images, labels, len(classes))
    tried: dict[Preprocess, PreprocessTrial] = {}
    remaining = list(_candidates(scalings))
    for known in filter(None, (likely, stored)):
        remaining = list(dict.fromkeys([*remaining, *(_scaled_as(known, candidate) for candidate in remaining)]))
    for count in (*ROUNDS, len(images)):
        trials = labelled.at(remaining, min(count, len(images)), every_offset=not tried)
        tried |= {trial.preprocess: trial for trial in trials}
        if count > ROUNDS[0]:
            _refuse_chance(trials[0], classes, labels)
        remaining = _still_open(trials, _MOST_CANDIDATES if count > ROUNDS[0] else len(trials))
        if count >= ROUNDS[-1] and not _reading_ties(trials):
            remaining = [trial.preprocess for trial in _scalings(trials)]
            if len(remaining) == 1:
                break
    return _finding(trials, tried.values(), likely, stored)


def _refuse_chance(best: PreprocessTrial, classes: tuple[str, ...], labels: Labels) -> None:
    # Always answering the largest class is right this often; a trained model gets at least a quarter of the rest right.
    chance = max(1 / len(classes), float(np.bincount(labels[: len(best.correct)]).max() / len(best.correct)))
    if best.accuracy < chance + (1 - chance) / 4:
        raise PreprocessUnknown(
            f"the checkpoint does not read these images: {best.accuracy:.1%} right at best, {best.preprocess}; chance "
            f"is {chance:.1%}; give the --data it was trained on, or the preprocess with options"
        )


def _still_open(trials: list[PreprocessTrial], most: int) -> list[Preprocess]:
    """Return the candidates that the best has not beaten yet, `most` at most, and the best of another reading."""
    best = trials[0]
    close = [trial for trial in trials if not reads_more(best, trial)]
    other = [trial for trial in trials if trial.reading != best.reading]
    return list(dict.fromkeys(trial.preprocess for trial in (*close[:most], *other[:1])))


def reads_more(better: PreprocessTrial, worse: PreprocessTrial) -> bool:
    """Return whether `better` has significantly more of the same images right."""
    from scipy.special import bdtrc  # scipy.stats takes a second to import

    gained = int((better.correct & ~worse.correct).sum())
    lost = int((worse.correct & ~better.correct).sum())
    return gained > lost and bool(bdtrc(gained - 1, gained + lost, 0.5) < SIGNIFICANCE)


def _likelier(better: PreprocessTrial, worse: PreprocessTrial) -> bool:
    tempered = larger_p_value(better.likelihood, worse.likelihood)
    raw = larger_p_value(better.raw_likelihood, worse.raw_likelihood)
    return bool(min(tempered, raw) < SIGNIFICANCE)


def larger_p_value(likelihood: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the p-value of a paired t-test that `likelihood` has the larger mean; NaN where the two are the same."""
    from scipy.special import stdtr

    difference = likelihood - other
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(stdtr(len(difference) - 1, -difference.mean() / error))


def _nearly_same(trial: PreprocessTrial, other: PreprocessTrial) -> bool:
    """Return whether two scalings give nearly the same answers, so that it hardly matters which is used."""
    return float((trial.predictions == other.predictions).mean()) >= AGREEMENT


def _scalings(trials: list[PreprocessTrial]) -> list[PreprocessTrial]:
    """Return the trials of the best reading that its best trial does not beat in accuracy, the likeliest first."""
    best = trials[0]
    close = [trial for trial in trials if trial.reading == best.reading and not reads_more(best, trial)]
    likeliest = max(trial.rank[1] for trial in close)
    # Where tempered likelihoods are equal, the raw ones show which contrast the model was trained with.
    tied = [trial for trial in close if likeliest - trial.rank[1] <= 0.002]
    winner = max(tied, key=lambda trial: float(trial.raw_likelihood.mean()))
    return [winner, *(trial for trial in close if trial is not winner)]


def _reading_ties(trials: list[PreprocessTrial]) -> list[PreprocessTrial]:
    """Return the best trial of each reading that the best of all does not beat."""
    best = trials[0]
    tied: dict[Reading, PreprocessTrial] = {}
    for trial in trials:
        if trial.reading != best.reading and not reads_more(best, trial):
            tied.setdefault(trial.reading, trial)
    return list(tied.values())


def _scaled_as(known: Preprocess, preprocess: Preprocess) -> Preprocess:
    return replace(preprocess, scale=known.scale, mean=known.mean, std=known.std)


def _known_scaling(
    scalings: list[PreprocessTrial], likely: Preprocess | None, stored: Preprocess | None
) -> PreprocessTrial | None:
    """Return the trial with the scaling of `likely` or `stored`, where the images do not contradict it."""
    known, possible = likely or stored, scalings
    if not likely:
        best = scalings[0]
        possible = [trial for trial in scalings if _nearly_same(best, trial) or not _likelier(best, trial)]
    return next(
        (trial for trial in possible if known and _scaled_as(known, trial.preprocess) == trial.preprocess), None
    )


def _finding(
    trials: list[PreprocessTrial],
    tried: Iterable[PreprocessTrial],
    likely: Preprocess | None,
    stored: Preprocess | None,
) -> PreprocessFinding:
    scalings, readings = _scalings(trials), _reading_ties(trials)
    known = _known_scaling(scalings, likely, stored)
    winner = known or scalings[0]
    others = [trial for trial in scalings if trial is not winner]
    ties = [trial for trial in others if not (known or _nearly_same(winner, trial) or _likelier(winner, trial))]
    if readings or any(trial.preprocess.scale != winner.preprocess.scale for trial in ties):
        tied = [trial.preprocess for trial in (winner, *(readings or ties))]
        raise PreprocessTied(tie_message(tied, len(winner.correct)), winner.accuracy)
    table = sorted(tried, key=lambda trial: (len(trial.correct), *trial.rank), reverse=True)
    runner_up = next(trial for trial in table if trial.reading != winner.reading)
    rows = tuple(Tried(t.preprocess, t.accuracy, float(t.likelihood.mean()), len(t.correct)) for t in table)
    same_reading = {trial.preprocess for trial in table if trial.reading == winner.reading} - {winner.preprocess}
    return PreprocessFinding(
        winner=winner.preprocess,
        accuracy=winner.accuracy,
        runner_up=runner_up.preprocess,
        runner_up_accuracy=runner_up.accuracy,
        images=len(winner.correct),
        table=rows,
        equivalent=tuple(trial.preprocess for trial in others if _nearly_same(winner, trial)),
        undecided=tuple(trial.preprocess for trial in ties),
        stored=stored,
        rescaled=next((row for row in rows if row.preprocess in same_reading), None),
    )


def tie_message(tied: Iterable[Preprocess], images: int) -> str:
    """Return the message for candidates that the images cannot tell apart, with the options of each."""
    lines = " or ".join(f"`{options_of(preprocess)}`" for preprocess in tied)
    return f"{images} images do not decide how it wants its images; choose one: {lines}"
