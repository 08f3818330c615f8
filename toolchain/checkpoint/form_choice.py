"""Choose among the forms in which a model may take its images (`input_form`), by labelled images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from targets.preprocess import Preprocess
from toolchain.checkpoint.float_model import FloatModel, forward
from toolchain.checkpoint.preprocess_search import (
    SCALINGS,
    SIGNIFICANCE,
    LabelledRun,
    PreprocessFinding,
    PreprocessTied,
    PreprocessTrial,
    larger_p_value,
    options_of,
    reads_more,
    search,
)
from toolchain.core.errors import PreprocessUnknown

if TYPE_CHECKING:
    from calibration.dataset import Images, Labels

_PLAIN = (Preprocess(),)
"""The one scaling of a model that normalizes its channels itself: pixels from 0 to 1."""


Found = tuple[FloatModel, PreprocessFinding]
"""A form with the preprocess that was found for it, and how."""


class Forms(NamedTuple):
    """The forms of one model.

    free: take pixels under any scaling. normalized: take pixels from 0 to 1 and normalize three channels themselves.
    by_channel: whether the checkpoint itself stores the numbers of the first of `normalized`.
    """

    free: tuple[FloatModel, ...]
    normalized: tuple[FloatModel, ...] = ()
    by_channel: bool = False


def found(forms: Forms, drawn: tuple[Images, Labels], stored: Preprocess | None) -> Found:
    """Return the form that reads the images best, with the preprocess that was found for it.

    drawn: images and labels, as `search` takes them. stored: see there. Among forms that read equally many images
    right, that of the checkpoint's own numbers or else the likeliest is taken.

    Raises PreprocessUnknown where no form reads the images, and where the best of them ties.
    """
    results: list[Found] = []
    refusals: list[PreprocessUnknown] = []
    for model in (*forms.free, *forms.normalized):
        own = model in forms.normalized
        try:
            finding = search(
                *(forward(model), *drawn),
                classes=model.classes,
                stored=None if own else stored,
                scalings=_PLAIN if own else SCALINGS,
            )
        except PreprocessUnknown as refusal:
            refusals.append(refusal)
        else:
            results.append((replace(model, preprocess=finding.winner), finding))
    most = max((finding.accuracy for _, finding in results), default=0.0)
    tie = next((each for each in refusals if isinstance(each, PreprocessTied) and each.accuracy >= most), None)
    if tie or not results:
        raise tie or refusals[0]
    return results[0] if len(results) == 1 else _best(results, forms, drawn)


def _best(results: list[Found], forms: Forms, drawn: tuple[Images, Labels]) -> Found:
    pairs = [(_trial(model, drawn), (model, finding)) for model, finding in results]
    best = max((trial for trial, _ in pairs), key=lambda trial: trial.rank)
    close = [pair for pair in pairs if not reads_more(best, pair[0])]
    own = [result for _, result in close if forms.by_channel and result[0].history == forms.normalized[0].history]
    if own:
        return own[0]
    likeliest = max((trial for trial, _ in close), key=lambda trial: trial.rank[1])
    tied = [pair for pair in close if not larger_p_value(likeliest.likelihood, pair[0].likelihood) < SIGNIFICANCE]
    # Where tempered likelihoods tie, the raw ones show which contrast the model was trained with.
    return max(tied, key=lambda pair: float(pair[0].raw_likelihood.mean()))[1]


def likelier(forms: Forms, drawn: tuple[Images, Labels] | None) -> FloatModel:
    """Return the form that reads most images right under the preprocess that is known.

    A form that normalizes its channels is taken where the checkpoint stores the numbers, unless it reads
    significantly fewer images, or else where it reads significantly more; never where the preprocess has a mean and a
    std of its own. drawn: images and labels; without them only what the checkpoint stores decides.
    """
    known = forms.free[0].preprocess
    normalized = forms.normalized if replace(known, scale="0-1", mean=0.0, std=1.0) == known else ()
    if drawn is None:
        return normalized[0] if normalized and forms.by_channel else forms.free[0]
    if len(forms.free) == 1 and not normalized:
        return forms.free[0]
    free = max(((_trial(model, drawn), model) for model in forms.free), key=lambda pair: pair[0].accuracy)
    if not normalized:
        return free[1]
    own = max(((_trial(model, drawn), model) for model in normalized), key=lambda pair: pair[0].accuracy)
    preferred, other = (own, free) if forms.by_channel else (free, own)
    return other[1] if reads_more(other[0], preferred[0]) else preferred[1]


def _trial(model: FloatModel, drawn: tuple[Images, Labels]) -> PreprocessTrial:
    """Return a model's answers on all images under its own preprocess."""
    run = LabelledRun(forward(model), *drawn, len(model.classes))
    return run.at([model.preprocess], len(drawn[0]), every_offset=False)[0]


def unknown_preprocess(scaling: Preprocess | None) -> str:
    """Return that a file does not say how it wants images, with options. scaling: the mean and std that it stores."""
    options = options_of(scaling or Preprocess())
    stored = f" beside mean {scaling.mean:g} and std {scaling.std:g}" if scaling else ""
    return f"does not say how it wants images{stored}; give it with options, such as {options}"
