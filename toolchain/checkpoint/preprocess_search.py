"""Find out how a model wants its images, by showing it labelled ones under every plausible Preprocess.

The turn, the ink's colour and the label offset change what a model reads, so the best must read significantly more
images right than the runner-up (exact McNemar test, paired image by image). The scaling changes little on many
networks, so it is settled by the likelihood of the true class after temperature scaling (Guo et al. 2017, which takes
out that a smaller contrast only makes a network less sure) or as answered, with paired t-tests. What stays open is an
error that gives the options of each candidate, except between scalings that give the same answer on 98 % of the images
and between means and standard deviations on the same scale: there the likelier is taken, and the others are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images, Labels
from targets.preprocess import Layout, Preprocess
from toolchain.checkpoint.preprocess_trial import LabelledRun, PreprocessTrial, Reading, Run, candidates, options_of
from toolchain.core.errors import PreprocessUnknown

ROUNDS = (32, 100, 400)
SEARCH_IMAGES = 1500
"""As many labelled images as a search gains from; callers draw them at random."""
LEAST_IMAGES = 50
SIGNIFICANCE = 0.01
ALIKE = 0.98
_KEPT = 12


@dataclass(frozen=True)
class Tried:
    """One Preprocess and how the model read under it: share right, mean log-likelihood (nats) of the true class."""

    preprocess: Preprocess
    accuracy: float
    log_likelihood: float
    images: int


@dataclass(frozen=True)
class PreprocessFinding:
    """How the model wants its images; `runner_up` is the best that turns, inverts or counts labels differently.

    rescaled: the best of the other scalings with the winner's turn, ink and labels, on the images that it was shown.
    margin: fraction of images, accuracy less runner_up_accuracy. images: how many the winner was shown; the runner-up
    is shown no more once it is beaten. table: all that was tried, the best first, each on the images of the last round
    it reached. equivalent: scalings with nearly the same answers.
    undecided: other means and standard deviations under which the model answers otherwise, but neither shown to be less
    accurate nor less likely; the winner is the likeliest of them. stored: whose mean and std the checkpoint names.
    """

    winner: Preprocess
    accuracy: float
    runner_up: Preprocess
    runner_up_accuracy: float
    margin: float
    images: int
    table: tuple[Tried, ...]
    equivalent: tuple[Preprocess, ...] = ()
    undecided: tuple[Preprocess, ...] = ()
    stored: Preprocess | None = None
    rescaled: Tried | None = None

    def sentence(self) -> str:
        """Return the line that a file keeps: what was found, and why."""
        return f"{self.winner} ({self.evidence})"

    @property
    def evidence(self) -> str:
        """Return why the winner was taken, which a press shows beside it."""
        alike = f"; nearly the same: {' or '.join(map(_scaling_text, self.equivalent))}" if self.equivalent else ""
        open_ = " or ".join(f"`{options_of(other)}`" for other in self.undecided)
        tied = f"; a tie of mean and std, of which this is the likelier: the others are {open_}" if open_ else ""
        turned = f"{self.runner_up_accuracy:.1%}, {self.runner_up}"
        other = self.rescaled
        second = turned
        if other and other.accuracy >= self.runner_up_accuracy:
            second = f"{other.accuracy:.1%}, {other.preprocess}; other turn, ink or labels {turned}"
        return (
            f"found: {self.accuracy:.1%} right; next best {second}; {self.images} images{alike}{tied}{self._stored()}"
        )

    def _stored(self) -> str:
        if self.stored is None:
            return ""
        numbers = f"mean {self.stored.mean:g} std {self.stored.std:g}"
        if _scaled_as(self.stored, self.winner) == self.winner:
            return f"; {numbers}, as the checkpoint says"
        return f"; the checkpoint says {numbers}, which fits worse"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, the table's first ten rows included."""
        rows = [
            row.preprocess.to_dict() | {"accuracy": row.accuracy, "log_likelihood": row.log_likelihood}
            for row in self.table[:10]
        ]
        return {
            "winner": self.winner.to_dict(),
            "accuracy": self.accuracy,
            "runner_up": self.runner_up.to_dict(),
            "runner_up_accuracy": self.runner_up_accuracy,
            "rescaled": self.rescaled.preprocess.to_dict() if self.rescaled else None,
            "rescaled_accuracy": self.rescaled.accuracy if self.rescaled else None,
            "margin": self.margin,
            "images": self.images,
            "equivalent": [preprocess.to_dict() for preprocess in self.equivalent],
            "undecided": [preprocess.to_dict() for preprocess in self.undecided],
            "stored": self.stored.to_dict() if self.stored else None,
            "table": rows,
        }


def search(
    run: Run,
    images: Images,
    labels: Labels,
    *,
    classes: tuple[str, ...],
    layout: Layout = "NCHW",
    likely: Preprocess | None = None,
    stored: Preprocess | None = None,
) -> PreprocessFinding:
    """Find the Preprocess under which `run` reads the images best.

    run: float32 batch in `layout` to logits [N, len(classes) or one more]. images: uint8 [N, 28, 28], upright, in
    random order; 32 are shown under every candidate, more only under what is still close. labels: int64 [N].
    likely: of a file that this one is to replace; its scaling is taken unless another one reads significantly more.
    stored: what the checkpoint itself names; its scaling is tried too, and taken unless another one is shown to be
    likelier.

    Raises PreprocessUnknown on fewer than 50 images, when the best is near chance, and on a tie of anything but mean
    and std, which it lists.
    """
    if len(images) < LEAST_IMAGES:
        raise PreprocessUnknown(
            f"{len(images)} labelled images are too few to find the preprocess; give {LEAST_IMAGES} or options"
        )
    labelled = LabelledRun(run, images, labels, len(classes))
    tried: dict[Preprocess, PreprocessTrial] = {}
    remaining = list(candidates(layout))
    for known in filter(None, (likely, stored)):
        remaining = list(dict.fromkeys([*remaining, *(_scaled_as(known, candidate) for candidate in remaining)]))
    for count in (*ROUNDS, len(images)):
        trials = labelled.at(remaining, min(count, len(images)), every_offset=not tried)
        tried |= {trial.preprocess: trial for trial in trials}
        if count > ROUNDS[0]:
            _refuse_chance(trials[0], classes, labels)
        remaining = _still_open(trials, _KEPT if count > ROUNDS[0] else len(trials))
        if count >= ROUNDS[-1] and not _reading_ties(trials):
            remaining = [trial.preprocess for trial in _scalings(trials)]
            if len(remaining) == 1:
                break
    return _finding(trials, tried.values(), likely, stored)


def _refuse_chance(best: PreprocessTrial, classes: tuple[str, ...], labels: Labels) -> None:
    # The largest class alone is right that often; a trained model gets at least a quarter of the rest.
    chance = max(1 / len(classes), float(np.bincount(labels[: len(best.correct)]).max() / len(best.correct)))
    if best.accuracy < chance + (1 - chance) / 4:
        raise PreprocessUnknown(
            f"the checkpoint does not read these images: {best.accuracy:.1%} right at best, "
            f"{best.preprocess}; chance is {chance:.1%}; "
            f"give the --data it was trained on, or the preprocess with options"
        )


def _still_open(trials: list[PreprocessTrial], most: int) -> list[Preprocess]:
    """Return what the best has not beaten yet, `most` at most, and the best of another reading for comparison."""
    best = trials[0]
    close = [trial for trial in trials if not _reads_more(best, trial)]
    other = [trial for trial in trials if trial.reading != best.reading]
    return list(dict.fromkeys(trial.preprocess for trial in (*close[:most], *other[:1])))


def _reads_more(better: PreprocessTrial, worse: PreprocessTrial) -> bool:
    from scipy.special import bdtrc  # scipy.stats takes a second to import

    gained = int((better.correct & ~worse.correct).sum())
    lost = int((worse.correct & ~better.correct).sum())
    return gained > lost and bool(bdtrc(gained - 1, gained + lost, 0.5) < SIGNIFICANCE)


def _likelier(better: PreprocessTrial, worse: PreprocessTrial) -> bool:
    tempered = larger_p_value(better.likelihood, worse.likelihood)
    raw = larger_p_value(better.raw_likelihood, worse.raw_likelihood)
    return bool(min(tempered, raw) < SIGNIFICANCE)


def larger_p_value(likelihood: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the p-value of a paired t-test that the mean of `one` is the larger; NaN where they are the same."""
    from scipy.special import stdtr

    difference = likelihood - other
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(stdtr(len(difference) - 1, -difference.mean() / error))


def _alike(trial: PreprocessTrial, other: PreprocessTrial) -> bool:
    """Say whether two scalings give nearly the same answers, so that it hardly matters which is taken."""
    return float((trial.predictions == other.predictions).mean()) >= ALIKE


def _scalings(trials: list[PreprocessTrial]) -> list[PreprocessTrial]:
    """Return the trials of the winning reading that its best does not beat in accuracy, the likeliest of them first."""
    best = trials[0]
    close = [trial for trial in trials if trial.reading == best.reading and not _reads_more(best, trial)]
    likeliest = max(trial.rank[1] for trial in close)
    # Where tempering makes them equal, the likelihood as answered says which contrast the model was trained with.
    winner = max(
        (t for t in close if likeliest - t.rank[1] <= 0.002), key=lambda trial: float(trial.raw_likelihood.mean())
    )
    return [winner, *(trial for trial in close if trial is not winner)]


def _reading_ties(trials: list[PreprocessTrial]) -> list[PreprocessTrial]:
    """Return the best trial of each reading that the best of all does not beat."""
    best = trials[0]
    tied: dict[Reading, PreprocessTrial] = {}
    for trial in trials:
        if trial.reading != best.reading and not _reads_more(best, trial):
            tied.setdefault(trial.reading, trial)
    return list(tied.values())


def _scaling_ties(trials: list[PreprocessTrial]) -> list[PreprocessTrial]:
    winner, *others = _scalings(trials)
    return [trial for trial in others if not (_alike(winner, trial) or _likelier(winner, trial))]


def _scaled_as(known: Preprocess, preprocess: Preprocess) -> Preprocess:
    return replace(preprocess, scale=known.scale, mean=known.mean, std=known.std)


def _known(
    trials: list[PreprocessTrial], likely: Preprocess | None, stored: Preprocess | None
) -> PreprocessTrial | None:
    """Return the trial with the scaling that is known from elsewhere, if it can be the one."""
    winner, *others = _scalings(trials)
    if likely:
        return next((t for t in (winner, *others) if _scaled_as(likely, t.preprocess) == t.preprocess), None)
    able = (t for t in (winner, *others) if _alike(winner, t) or not _likelier(winner, t))
    return next((t for t in able if stored and _scaled_as(stored, t.preprocess) == t.preprocess), None)


def _finding(
    trials: list[PreprocessTrial],
    tried: Iterable[PreprocessTrial],
    likely: Preprocess | None,
    stored: Preprocess | None,
) -> PreprocessFinding:
    known = _known(trials, likely, stored)
    winner = known or _scalings(trials)[0]
    scalings = [trial for trial in _scalings(trials) if trial is not winner]
    readings = _reading_ties(trials)
    ties = [] if known else _scaling_ties(trials)
    if readings or any(trial.preprocess.scale != winner.preprocess.scale for trial in ties):
        raise PreprocessUnknown(
            tie_message([trial.preprocess for trial in (winner, *(readings or ties))], len(winner.correct))
        )
    table = sorted(tried, key=lambda trial: (len(trial.correct), *trial.rank), reverse=True)
    runner_up = next(trial for trial in table if trial.reading != winner.reading)
    rows = tuple(Tried(t.preprocess, t.accuracy, float(t.likelihood.mean()), len(t.correct)) for t in table)
    alike = {trial.preprocess for trial in table if trial.reading == winner.reading} - {winner.preprocess}
    return PreprocessFinding(
        winner=winner.preprocess,
        accuracy=winner.accuracy,
        runner_up=runner_up.preprocess,
        runner_up_accuracy=runner_up.accuracy,
        margin=winner.accuracy - runner_up.accuracy,
        images=len(winner.correct),
        table=rows,
        equivalent=tuple(trial.preprocess for trial in scalings if _alike(winner, trial)),
        undecided=tuple(trial.preprocess for trial in ties),
        stored=stored,
        rescaled=next((row for row in rows if row.preprocess in alike), None),
    )


def _scaling_text(preprocess: Preprocess) -> str:
    """Return a Preprocess in words, without its turn."""
    return str(preprocess).partition(", ")[2]


def tie_message(tied: Iterable[Preprocess], images: int) -> str:
    """Return the error of what could not be told apart: what to give for each."""
    lines = " or ".join(f"`{options_of(preprocess)}`" for preprocess in tied)
    return f"how it wants its images is a tie on {images} images; say which: {lines}"
