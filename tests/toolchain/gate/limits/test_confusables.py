"""Look-alikes and what misreading them costs: which classes a group means, what is counted, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.spec import emnist_split
from tests.fixtures.small_readers import DIGITS, written
from toolchain.core.errors import EvidenceError, PolicyError
from toolchain.evaluation.compare import Pairs, comparison
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limits.confusables import (
    ConfusablesLimit,
    CostLimit,
    cost_matrix,
    groups,
    judge_confusables,
    judge_cost,
)
from toolchain.gate.policy import policy_from
from toolchain.stats.decision import Outcome

BALANCED = emnist_split("balanced").classes
Answers = NDArray[np.int64]


def pairs(labels: Answers, before: Answers, after: Answers, classes: tuple[str, ...] = DIGITS) -> Pairs:
    return Pairs.of(
        written(before, labels, classes=classes, name="a.onnx"), written(after, labels, classes=classes, name="b.onnx")
    )


def reread(changes: dict[str, int], images: int = 400, classes: tuple[str, ...] = BALANCED) -> Pairs:
    """A baseline without error, and a candidate that reads some images otherwise: `"1->7": 12`."""
    labels = np.repeat(np.arange(len(classes)), images)
    after = labels.copy()
    for key, count in changes.items():
        truth, answer = (classes.index(end) for end in key.split("->"))
        at = np.flatnonzero((labels == truth) & (after == truth))[:count]
        after[at] = answer
    return pairs(labels, labels, after, classes)


def names(limit: dict[str, Any], classes: tuple[str, ...]) -> dict[str, str]:
    """The groups by name, each with its classes."""
    found = groups(ConfusablesLimit(max=0.01, **limit), classes)
    return {group.name: "".join(classes[k] for k in sorted(group.members)) for group in found}


def test_the_default_groups_are_cut_to_the_classes_there_are() -> None:
    assert list(names({}, BALANCED)) == [
        *("0DOQ", "17IL", "5S", "2Z", "9gq", "6Gb", "8Bb", "UV", "4Y", "Ff", "Tft", "Nn"),
    ]
    # Letters merge both cases: `g` and `q` are G and Q, l is L, and Ff is one class.
    assert list(names({}, emnist_split("letters").classes)) == ["DOQ", "IL", "GQ", "BG", "UV", "FT"]
    assert list(names({}, tuple("abcdefghijklmnopqrstuvwxyz"))) == ["doq", "il", "gq", "bg", "uv", "ft"]
    assert list(names({}, DIGITS)) == ["17"]
    with pytest.raises(PolicyError, match="none has two members among the classes"):
        names({}, tuple("aehm"))


def test_a_class_stands_for_both_cases_but_only_once() -> None:
    assert names({"groups": ("0Oo",)}, BALANCED) == {"0Oo": "0O"}
    assert names({"groups": ("Gg", "9gq")}, BALANCED) == {"Gg": "Gg", "9gq": "9gq"}
    images = reread({"O->0": 40})
    found = judge_confusables(ConfusablesLimit(max=0.01, groups=("0Oo",)), images)
    assert found.parts[0].note == "40 worse, 0 better of 800"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        pytest.param({"groups": ("0Oo", "1l")}, "group '0Oo' needs two of the classes .* names only '0'", id="one"),
        pytest.param({"groups": ("ab",)}, "group 'ab' .* names nothing; take it out, or correct it", id="none"),
        pytest.param({"groups": ("00",)}, "names only '0'", id="the same twice"),
        pytest.param({"margins": {"1x": 0.1}}, "group '1x' .* names only '1'", id="a margin of no group"),
        pytest.param({"margins": {"17": 0.1, "71": 0.2}}, "'17' and '71' are the same classes here", id="two margins"),
    ],
)
def test_a_group_that_a_person_wrote_is_never_left_out(limit: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        judge_confusables(ConfusablesLimit(max=0.01, **limit), reread({}, classes=DIGITS))


def test_a_written_character_that_no_class_holds_is_told() -> None:
    found = judge_confusables(ConfusablesLimit(max=0.01, groups=("1Il7",)), reread({}, classes=DIGITS))
    assert found.reason.endswith("; of the groups written, no class holds I, l")
    assert "no class holds" not in judge_confusables(ConfusablesLimit(max=0.01), reread({}, classes=DIGITS)).reason


@pytest.mark.parametrize("table", [{"groups": ["0"]}, {"margins": {"7": "1pp"}}, {"group": ["17"]}])
def test_what_can_be_no_group_is_refused_with_the_policy(table: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        policy_from({"confusables": {"max": "1pp"} | table})


def test_margins_go_to_the_group_they_name_or_make_one() -> None:
    limit = ConfusablesLimit(max=0.01, margins={"l1I7": 0.04, "4A": 0.02})
    found = {group.name: group.margin for group in groups(limit, BALANCED)}
    assert (found["17IL"], found["4A"], found["5S"]) == (0.04, 0.02, 0.01)
    assert len(found) == 13


def test_look_alikes_fail_though_accuracy_passes() -> None:
    """48 ones are read as sevens, and as many other images better than before."""
    labels = np.repeat(np.arange(47), 400)
    before, after = labels.copy(), labels.copy()
    ones, ems = np.flatnonzero(labels == 1), np.flatnonzero(labels == BALANCED.index("M"))
    after[ones[:48]] = 7
    before[ems[:48]] = BALANCED.index("W")
    policy = policy_from({"drop": {"max": "0.3pp"}, "confusables": {"max": "1pp"}})
    drop, found = judge(policy, Evidence(pairs(labels, before, after, BALANCED)))
    assert drop.outcome is Outcome.PASS
    assert found.outcome is Outcome.FAIL
    assert found.measured == 48 / 1_600
    assert "by group, 1 of 12 fell beyond the margin of 1 pp" in found.reason
    assert "'17IL' 3.00 pp" in found.reason


def test_errors_outside_the_group_are_not_its() -> None:
    assert judge_confusables(ConfusablesLimit(max=0.01), reread({"1->M": 200, "M->1": 200})).outcome is Outcome.PASS


FEW = ("0", "O", "D", "1", "L", "x")
random_answers = st.integers(20, 80).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 5), min_size=n, max_size=n) for _ in range(3)])
)


@settings(max_examples=40)
@given(random_answers)
def test_counts_are_those_of_a_walk_over_the_images(case: tuple[list[int], list[int], list[int]]) -> None:
    labels, before, after = case
    labels[:6] = range(6)
    found = judge_confusables(
        ConfusablesLimit(max=0.05, groups=("0oD", "1l")),
        pairs(np.array(labels), np.array(before), np.array(after), FEW),
    )
    for part, group in zip(found.parts, ({"0", "O", "D"}, {"1", "L"}), strict=True):
        worse = better = images = 0
        for truth, old, new in zip(*([FEW[k] for k in side] for side in (labels, before, after)), strict=True):
            if truth in group:
                images += 1
                taken = [answer in group and answer != truth for answer in (old, new)]
                worse += taken == [False, True]
                better += taken == [True, False]
        assert part.note == f"{worse} worse, {better} better of {images}"
        assert part.measured == (worse - better) / images


def test_without_costs_of_its_own_the_cost_is_the_drop() -> None:
    for changes in ({"1->7": 30}, {"1->7": 100}, {"3->8": 600}):
        images = reread(changes)
        drop, cost = judge(policy_from({"drop": {"max": "0.3pp"}, "cost": {"max": "0.3pp"}}), Evidence(images))
        assert (cost.outcome, cost.samples_needed) == (drop.outcome, drop.samples_needed)
        assert cost.measured == pytest.approx(drop.measured)
        assert cost.bound == pytest.approx(drop.bound, abs=1e-12)


def test_a_dear_misreading_fails_though_accuracy_passes() -> None:
    policy = policy_from({"drop": {"max": "0.3pp"}, "cost": {"max": "1pp", "costs": {"1->7": 20, "O->0": 0}}})
    drop, cost = judge(policy, Evidence(reread({"1->7": 25, "O->0": 5})))
    assert drop.outcome is Outcome.PASS
    assert cost.outcome is Outcome.FAIL
    assert cost.measured == pytest.approx(25 * 20 / 18_800)
    assert cost.reason.startswith("misreadings cost 2.660 more on each 100 of 18,800 images, at least 1.")
    assert cost.reason.endswith("beyond the margin of 1; dearest: 1 read as 7: +25 at 20")


def test_a_dear_misreading_that_nobody_saw_needs_more_images() -> None:
    """One in 18,800 could still be there, and at 200 it would cost more than the margin."""
    limit = CostLimit(max=0.01, costs={"1->7": 200})
    found = judge_cost(limit, reread({}))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.measured == 0
    needed = found.samples_needed
    assert needed is not None
    assert f"about {needed:,} images like these would decide (80 % power)" in found.reason
    assert judge_cost(limit, reread({}, images=needed // 47 + 1)).outcome is Outcome.PASS


def test_cheap_misreadings_do_not_count() -> None:
    images = reread({"O->0": 300, "0->O": 300})
    assert comparison(images).drop > 0.03
    free = {"O->0": 0.0, "0->O": 0.0}
    assert judge_cost(CostLimit(max=0.003, costs=free), images).measured == 0
    assert judge_cost(CostLimit(max=0.003, costs=free), images).outcome is Outcome.PASS
    nothing = CostLimit(max=0.003, costs={"0->1": 0.002, "1->0": 0.001})
    with pytest.raises(EvidenceError, match=r"no misreading costs more than 0\.002, so the margin cannot be exceeded"):
        judge_cost(nothing, reread({}, classes=("0", "1")))


def test_costs_are_of_the_classes_that_hold_the_characters() -> None:
    found = cost_matrix({"l->1": 5.0, "g->9": 2.0}, BALANCED)
    at = BALANCED.index
    assert (found[at("L"), 1], found[1, at("L")], found[at("g"), 9], found[at("G"), 9]) == (5.0, 1.0, 2.0, 1.0)
    assert not np.diag(found).any()
    assert cost_matrix({"l->1": 5.0, "L->1": 5.0}, BALANCED)[at("L"), 1] == 5.0


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"1->é": 2.0}, "'1->é' names 'é', which no class holds"),
        ({"10->7": 2.0}, "'10->7' names '10'"),
        ({"O->o": 2.0}, "'O->o' is no misreading, since both are of class 'O'"),
        ({"l->1": 2.0, "L->1": 3.0}, "'l->1' and 'L->1' are the same classes here"),
    ],
)
def test_costs_of_what_is_no_misreading_are_refused(costs: dict[str, float], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        judge_cost(CostLimit(max=0.01, costs=costs), reread({}))


@pytest.mark.parametrize("key", ["1-7", "17", "->7", "1->", "1=>7"])
def test_a_malformed_misreading_is_refused_with_the_policy(key: str) -> None:
    with pytest.raises(PolicyError, match=f'"{key}": write a misreading as "truth->answer", such as'):
        policy_from({"cost": {"max": "1pp", "costs": {key: 2}}})


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf")])
def test_a_cost_that_is_no_cost_is_refused_with_the_policy(cost: float) -> None:
    with pytest.raises(PolicyError, match="1->7"):
        policy_from({"cost": {"max": "1pp", "costs": {"1->7": cost}}})
