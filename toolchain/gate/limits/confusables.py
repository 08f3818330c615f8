"""Confusables: characters that look alike, and what it costs to take one for another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from toolchain.core.errors import EvidenceError, PolicyError
from toolchain.core.quantities import beside, points_text
from toolchain.core.settings import Points
from toolchain.evaluation.class_groups import class_of, members_of
from toolchain.evaluation.compare import Answers, Pairs
from toolchain.evaluation.metrics import confusion_matrix
from toolchain.gate.limit import LimitDefinition, MarginLimit, Measure, Verdict, by_bounds
from toolchain.gate.multiple_tests import Question, judge_together
from toolchain.stats import bounded_mean
from toolchain.stats.decision import IN_STEPS, Outcome, advice

CONFUSABLE = ("0OoDQ", "1Il7", "5Ss", "2Zz", "9gq", "6Gb", "8Bb", "UVuv", "4Yy", "Ff", "Ttf", "Nn")
"""Look-alikes of handwriting, as the shipped model confuses them; of each group the members that the data set has."""


LookAlikes = Annotated[str, Field(min_length=2)]


def _misreading(value: object) -> object:
    truth, arrow, answer = str(value).partition("->")
    if not (truth and arrow and answer):
        raise ValueError('write a misreading as "truth->answer", such as "1->7"')
    return value


Misreading = Annotated[str, Field(pattern="^.+->.+$"), BeforeValidator(_misreading)]


class ConfusablesLimit(MarginLimit):
    """How much more often a character is read as one that looks like it, a group of look-alikes at a time.

    groups: strings of characters; of the ones that come by default only the members that the data set has count.
    margins: a margin of its own for a group, such as `"0Oo" = "1pp"`.
    """

    groups: tuple[LookAlikes, ...] = Field(default=CONFUSABLE, description="characters that look alike")
    margins: dict[LookAlikes, Points] = Field(
        default_factory=dict, description='of single groups, such as "0OoDQ" = "2pp"'
    )


class CostLimit(MarginLimit):
    """Rise of what misreadings cost, an image on average; a plain misreading costs 1.

    costs: what some misreadings cost instead, such as `"1->7" = 20` or `"O->0" = 0`.
    max: hundredths of a plain misreading an image, written `0.3pp`.
    """

    measure: ClassVar[Measure] = "cost"
    costs: dict[Misreading, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description='such as "1->7" = 20 or "O->0" = 0; any other misreading costs 1'
    )


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Look-alikes among a data set's classes. name: as verdicts call it; members: their indices."""

    name: str
    members: frozenset[int]
    margin: float


def judge_confusables(limit: ConfusablesLimit, pairs: Pairs) -> Verdict:
    """Judge, for each group of look-alikes, how much more often one is read as another of its group.

    A group's images are those of its classes. Worse is one that only the candidate reads as another member, better
    one that only the baseline does. Raises PolicyError as `groups` does.
    """
    questions = [_question(group, pairs) for group in groups(limit, pairs.classes)]
    verdict = judge_together("confusables", questions, confidence=limit.confidence, action=limit.action, what="group")
    given = "".join(limit.margins) + ("".join(limit.groups) if limit.groups != CONFUSABLE else "")
    absent = [character for character in dict.fromkeys(given) if class_of(character, pairs.classes) is None]
    if not absent:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; of the groups written, no class holds {', '.join(absent)}")


def groups(limit: ConfusablesLimit, classes: tuple[str, ...]) -> list[Group]:
    """Return the groups that can be judged on these classes, each with its margin.

    Of the default groups those with fewer than two members among the classes are left out. Raises PolicyError for
    a group that the user wrote, here or as the key of a margin, with fewer than two, for two margins of the same
    classes, and where no group is left.
    """
    margins: dict[frozenset[int], tuple[str, float]] = {}
    for key, margin in limit.margins.items():
        members = _given_members(key, classes)
        if members in margins:
            raise PolicyError(
                f"[confusables] margins: '{margins[members][0]}' and '{key}' are the same classes here; keep one"
            )
        margins[members] = key, margin
    names: dict[frozenset[int], str] = {}
    for text in limit.groups:
        if limit.groups != CONFUSABLE:
            names.setdefault(_given_members(text, classes), text)
        elif len(members := members_of(text, classes)) > 1:
            names.setdefault(members, "".join(classes[k] for k in sorted(members)))
    names |= {members: key for members, (key, _) in margins.items() if members not in names}
    if not names:
        raise PolicyError("[confusables] groups: none has two members among the classes; write groups of your own")
    return [
        Group(name, members, margins[members][1] if members in margins else limit.max)
        for members, name in names.items()
    ]


def _given_members(text: str, classes: tuple[str, ...]) -> frozenset[int]:
    members = members_of(text, classes)
    if len(members) < 2:
        known = f"only '{classes[next(iter(members))]}'" if members else "nothing"
        raise PolicyError(
            f"[confusables] group '{text}' needs two of the classes {' '.join(classes)} and names {known}; "
            "take it out, or correct it"
        )
    return members


def _question(group: Group, pairs: Pairs) -> Question:
    inside = np.isin(np.arange(len(pairs.classes)), list(group.members))
    before, after = (_misread(inside, pairs.labels, answers) for answers in (pairs.before, pairs.after))
    worse, better = int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after))
    return Question(group.name, worse, better, int(np.count_nonzero(inside[pairs.labels])), group.margin)


def _misread(inside: NDArray[np.bool_], labels: Answers, answers: Answers) -> NDArray[np.bool_]:
    """Return which images of the group are read as another member of it."""
    return np.asarray(inside[labels] & inside[answers] & np.not_equal(labels, answers))


def judge_cost(limit: CostLimit, pairs: Pairs) -> Verdict:
    """Judge the rise of the mean cost of an image's misreading, by score bounds of a bounded mean (`bounded_mean`).

    Raises PolicyError as `cost_matrix` does, and EvidenceError where no misreading could cost the margin.
    """
    costs = cost_matrix(limit.costs, pairs.classes)
    rises = costs[pairs.labels, pairs.after] - costs[pairs.labels, pairs.before]
    dearest = float(costs[np.unique(pairs.labels)].max())
    if not dearest > limit.max:
        raise EvidenceError(
            f"cost: no misreading costs more than {dearest:g}, so the margin cannot be exceeded; lower it"
        )
    sample = bounded_mean.Sample.of(rises, -dearest, dearest)
    outcome = Outcome(bounded_mean.decide(sample, limit.max, limit.confidence).item())
    low, high = (
        float(bound(sample, limit.confidence)) for bound in (bounded_mean.lower_bound, bounded_mean.upper_bound)
    )
    needed = (
        bounded_mean.images_needed(sample, limit.max, limit.confidence) if outcome is Outcome.INCONCLUSIVE else None
    )
    bound = low if outcome is Outcome.FAIL else high
    mean = float(sample.mean)
    least, most = (beside(end, limit.max, points_text, 3) for end in (low, high))
    bounds_text = by_bounds(outcome, least, most, f"margin of {limit.max * 100:.4g}", limit.confidence)
    reason = f"misreadings cost {points_text(mean, 3)} more on each 100 of {len(pairs):,} images, {bounds_text}"
    if outcome is Outcome.INCONCLUSIVE:
        reason += f"; {advice(needed, 'a rise that equals the margin')}"
        reason += IN_STEPS if high < limit.max or low > limit.max else ""
    if outcome is not Outcome.PASS:
        reason += _dearest(costs, pairs)
    return Verdict("cost", outcome, limit.action, limit.max, mean, bound, reason, needed)


def _dearest(costs: Floats, pairs: Pairs) -> str:
    """Return the misreadings whose cost rose the most, for the end of a reason."""
    size = len(pairs.classes)
    after, before = (confusion_matrix(pairs.labels, answers, size) for answers in (pairs.after, pairs.before))
    rise = (after - before) * costs
    pairs_by_rise = [divmod(int(at), size) for at in np.argsort(-rise, axis=None, kind="stable")[:3]]
    named = [
        f"{pairs.classes[i]} read as {pairs.classes[j]}: {int(after[i, j] - before[i, j]):+} at {costs[i, j]:g}"
        for i, j in pairs_by_rise
        if rise[i, j] > 0
    ]
    return f"; dearest: {', '.join(named)}" if named else ""


def cost_matrix(costs: dict[str, float], classes: tuple[str, ...]) -> Floats:
    """Return float64 [K, K], what it costs to read row as column: 0 when right, 1 unless `costs` says otherwise.

    Raises PolicyError, naming the key, for what is no `truth->answer` of two of the classes.
    """
    matrix, named = 1 - np.eye(len(classes)), dict[tuple[int, int], str]()
    for key, cost in costs.items():
        indices = [_class_named(key, text, classes) for text in key.split("->", 1)]
        cell = indices[0], indices[-1]
        if cell[0] == cell[1]:
            raise PolicyError(
                f"[cost] costs: '{key}' is no misreading, since both are of class '{classes[cell[0]]}'; drop it"
            )
        if cell in named and costs[named[cell]] != cost:
            raise PolicyError(f"[cost] costs: '{named[cell]}' and '{key}' are the same classes here; keep one")
        matrix[cell], named[cell] = cost, key
    return np.asarray(matrix, np.float64)


def _class_named(key: str, text: str, classes: tuple[str, ...]) -> int:
    index = class_of(text, classes)
    if index is None:
        raise PolicyError(
            f"[cost] costs: '{key}' names '{text}', which no class holds; take it out, or write one of the classes "
            f"{' '.join(classes)}"
        )
    return index


CONFUSABLES = LimitDefinition(
    name="confusables",
    settings=ConfusablesLimit,
    about="How much more often a character is read as one that looks like it.",
    example={"max": "2pp"},
    judge=judge_confusables,
    check_classes=groups,
)
COST = LimitDefinition(
    name="cost",
    settings=CostLimit,
    about="Rise of what misreadings cost, an image on average.",
    example={"max": "0.5pp", "costs": {"1->7": 20, "O->0": 0}},
    judge=judge_cost,
    check_classes=lambda limit, classes: cost_matrix(limit.costs, classes),
)
