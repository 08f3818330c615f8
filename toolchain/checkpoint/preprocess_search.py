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
"""More labelled images than this do not improve a search; callers draw them at random."""
LEAST_IMAGES = 50
SIGNIFICANCE = 0.01
AGREEMENT = 0.98
_MOST_CANDIDATES = 12


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
    was tried on. margin: accuracy less runner_up_accuracy, a fraction of images. images: how many the winner was tried
    on; the runner-up is tried on no more once it is beaten. table: all that was tried, the best first, each on the
    images of the last round it reached. equivalent: scalings with nearly the same answers. undecided: other means and
    standard deviations under which the model answers differently, but is neither significantly less accurate nor less
    likely; the winner is the likeliest of them. stored: has the mean and std that the checkpoint stores.
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
        """Return the line for the file's history: what was found, and why."""
        return f"{self.winner} ({self.evidence})"

    @property
    def evidence(self) -> str:
        """Return why the winner was chosen, which a press prints beside it."""
        equivalent = f"; nearly the same: {' or '.join(map(_scaling_text, self.equivalent))}" if self.equivalent else ""
        options = " or ".join(f"`{options_of(other)}`" for other in self.undecided)
        tied = f"; a tie of mean and std, of which this is the likelier: the others are {options}" if options else ""
        runner_up = f"{self.runner_up_accuracy:.1%}, {self.runner_up}"
        other = self.rescaled
        next_best = runner_up
        if other and other.accuracy >= self.runner_up_accuracy:
            next_best = f"{other.accuracy:.1%}, {other.preprocess}; other turn, ink or labels {runner_up}"
        summary = f"found: {self.accuracy:.1%} right; next best {next_best}; {self.images} images"
        return f"{summary}{equivalent}{tied}{self._stored()}"

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
    """Find the Preprocess under which `run` classifies the images best.

    run: float32 batch in `layout` to logits [N, len(classes) or one more]. images: uint8 [N, 28, 28], upright, in
    random order; 32 are tried under every candidate, more only under those still close. labels: int64 [N]. likely: of
    a file that this one is to replace; its scaling is used unless another one is significantly more accurate. stored:
    of the checkpoint itself; its scaling is tried too, and used unless another one is significantly likelier.

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
            f"the checkpoint does not read these images: {best.accuracy:.1%} right at best, "
            f"{best.preprocess}; chance is {chance:.1%}; "
            f"give the --data it was trained on, or the preprocess with options"
        )


def _still_open(trials: list[PreprocessTrial], most: int) -> list[Preprocess]:
    """Return the candidates that the best has not beaten yet, `most` at most, and the best of another reading."""
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
    close = [trial for trial in trials if trial.reading == best.reading and not _reads_more(best, trial)]
    likeliest = max(trial.rank[1] for trial in close)
    # Where tempered likelihoods are equal, the raw ones show which contrast the model was trained with.
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
    return [trial for trial in others if not (_nearly_same(winner, trial) or _likelier(winner, trial))]


def _scaled_as(known: Preprocess, preprocess: Preprocess) -> Preprocess:
    return replace(preprocess, scale=known.scale, mean=known.mean, std=known.std)


def _trial_of_known_scaling(
    trials: list[PreprocessTrial], likely: Preprocess | None, stored: Preprocess | None
) -> PreprocessTrial | None:
    """Return the trial with the scaling of `likely` or `stored`, where the images do not contradict it."""
    winner, *others = _scalings(trials)
    if likely:
        return next((t for t in (winner, *others) if _scaled_as(likely, t.preprocess) == t.preprocess), None)
    possible = (t for t in (winner, *others) if _nearly_same(winner, t) or not _likelier(winner, t))
    return next((t for t in possible if stored and _scaled_as(stored, t.preprocess) == t.preprocess), None)


def _finding(
    trials: list[PreprocessTrial],
    tried: Iterable[PreprocessTrial],
    likely: Preprocess | None,
    stored: Preprocess | None,
) -> PreprocessFinding:
    known = _trial_of_known_scaling(trials, likely, stored)
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
    same_reading = {trial.preprocess for trial in table if trial.reading == winner.reading} - {winner.preprocess}
    return PreprocessFinding(
        winner=winner.preprocess,
        accuracy=winner.accuracy,
        runner_up=runner_up.preprocess,
        runner_up_accuracy=runner_up.accuracy,
        margin=winner.accuracy - runner_up.accuracy,
        images=len(winner.correct),
        table=rows,
        equivalent=tuple(trial.preprocess for trial in scalings if _nearly_same(winner, trial)),
        undecided=tuple(trial.preprocess for trial in ties),
        stored=stored,
        rescaled=next((row for row in rows if row.preprocess in same_reading), None),
    )


def _scaling_text(preprocess: Preprocess) -> str:
    """Return the text of a Preprocess without its orientation."""
    return str(preprocess).partition(", ")[2]


def tie_message(tied: Iterable[Preprocess], images: int) -> str:
    """Return the message for candidates that the images cannot tell apart, with the options of each."""
    lines = " or ".join(f"`{options_of(preprocess)}`" for preprocess in tied)
    return f"how it wants its images is a tie on {images} images; say which: {lines}"
