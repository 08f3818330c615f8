"""Plans: exact chances against full enumeration, numbers of images that keep their promise, plans of whole policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Finished
from tests.fixtures.lazy import stats
from toolchain.core.errors import UsageProblem
from toolchain.core.json_codec import to_json
from toolchain.gate.plan import SIZES, chances, plan, plan_policy
from toolchain.gate.policy import named, policy_from
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import Truth, chance, tail_beyond

Run = Callable[..., Finished]


def enumerated(truth: Truth, margin: float) -> dict[Outcome, float]:
    """Every table there is, each with its multinomial chance."""
    lost, gained = np.meshgrid(*[np.arange(truth.count + 1)] * 2, indexing="ij")
    inside = lost + gained <= truth.count
    tables = np.stack([lost[inside], gained[inside], truth.count - lost[inside] - gained[inside]], axis=-1)
    shares = [truth.lost, truth.gained, 1 - truth.lost - truth.gained]
    weights = stats.multinomial.pmf(tables, truth.count, shares)
    judged = paired_difference.decide(lost[inside], gained[inside], truth.count, margin)
    return {outcome: float(weights[judged == outcome].sum()) for outcome in Outcome}


@settings(max_examples=25)
@given(st.integers(1, 150), st.floats(0.01, 0.4), st.floats(-1, 1), st.floats(0.0, 0.9))
def test_chances_are_those_of_all_tables_together(count: int, margin: float, tilt: float, discordance: float) -> None:
    truth = Truth.of(count, tilt * discordance, discordance)
    assert truth is not None
    found, expected = chances(truth, margin), enumerated(truth, margin)
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 300), st.integers(0, 20_000), st.floats(0.0005, 0.9))
def test_losing_instead_of_gaining_always_looks_worse(discordant: int, kept: int, margin: float) -> None:
    """What lets `chance` add up binomial tails instead of tables."""
    lost = np.arange(discordant + 1)
    statistic = paired_difference.score(lost, discordant - lost, max(discordant + kept, 1), margin)
    assert np.all(np.diff(statistic) > 0)


def test_the_tail_of_a_table_is_a_p_value() -> None:
    assert tail_beyond(12, 2, 400, 0.01) < 0.05 < tail_beyond(8, 2, 400, 0.01)
    # Nothing gained and none expected: the number lost is binomial.
    binomial = chance(Truth(400, 0.02, 0.0), lambda lost, _: lost >= 15)
    assert tail_beyond(15, 0, 400, 0.02) == pytest.approx(binomial, rel=1e-9)
    assert tail_beyond(400, 0, 400, 0.5) == pytest.approx(0.5**400, rel=1e-6)


def test_the_issues_example() -> None:
    found = plan(0.003, 0.01)
    assert [(one.power, one.images) for one in found.needed] == [(0.8, 7_310), (0.9, 9_948)]
    assert [row.images for row in found.rows] == sorted([*SIZES, 7_310, 9_948])
    rows = {row.images: row for row in found.rows}
    assert rows[18_800].right_pass == pytest.approx(0.9922, abs=1e-4)
    assert rows[1_000].right_pass == pytest.approx(0.2138, abs=1e-4)
    for before, after in pairwise(found.rows):
        assert before.right_pass < after.right_pass
        assert before.right_fail < after.right_fail  # type: ignore[operator] # neither is None here
    assert all(row.false_pass is not None and row.false_pass <= 0.051 for row in found.rows)
    assert all(row.false_fail <= 0.02 for row in found.rows)
    assert json.loads(json.dumps(to_json(found)))["rows"][0]["images"] == 500


@pytest.mark.parametrize(
    ("margin", "discordance", "drop"), [(0.003, 0.005, 0.0), (0.01, 0.03, 0.004), (0.05, 0.2, -0.01)]
)
def test_the_numbers_of_images_keep_their_promise(margin: float, discordance: float, drop: float) -> None:
    found = plan(margin, discordance, drop=drop, sizes=())
    random = np.random.default_rng(4)
    shares = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    for one, row in zip(found.needed, found.rows, strict=True):
        assert row.images == one.images
        assert one.power <= row.right_pass <= one.power + 0.05
        draws = random.multinomial(one.images, shares, size=10_000)
        passed = paired_difference.decide(draws[:, 0], draws[:, 1], one.images, margin) == Outcome.PASS
        assert np.mean(passed) == pytest.approx(row.right_pass, abs=0.015)


def test_without_any_change_the_number_is_that_of_tables_without_a_loss() -> None:
    found = plan(0.003, 0.0, sizes=(990, 999))
    assert {one.images for one in found.needed} == {999}
    assert [row.right_pass for row in found.rows] == [0.0, 1.0]


def test_a_truth_that_cannot_be_had_has_no_chance() -> None:
    """Where 0.5 % of the answers differ, none drops by 0.6 pp; where 0.2 % do, none by the margin of 0.3 pp."""
    (row,) = plan(0.003, 0.005, sizes=(4_000,), power=()).rows
    assert row.right_fail is None
    assert row.false_pass is not None
    (row,) = plan(0.003, 0.002, sizes=(4_000,), power=()).rows
    assert (row.right_fail, row.false_pass) == (None, None)
    (row,) = plan(0.003, 0.006, sizes=(4_000,), power=()).rows
    assert row.right_fail is not None


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"drop": 0.02}, "a drop of 2pp changes more images than a discordance of 1pp"),
        ({"drop": -0.02}, "changes more images"),
        ({"drop": 0.003}, "never shown to stay within 0.3pp"),
        ({"drop": 0.005}, "give a larger margin"),
        ({"margin": 0.0}, "a margin of 0pp limits nothing"),
        ({"margin": float("nan")}, "limits nothing"),
        ({"discordance": 1.5}, "no share of images"),
        ({"discordance": float("nan")}, "no share of images"),
        ({"power": (0.0,)}, "between 0.5 and 1"),
        ({"confidence": 1.0}, "between 0.5 and 1"),
        ({"sizes": (0,)}, "at least 1"),
    ],
)
def test_impossible_wishes_are_refused(wish: dict[str, float], message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        plan(**({"margin": 0.003, "discordance": 0.01} | wish))  # type: ignore[arg-type] # wrong on purpose


def test_row47_the_limits_of_default_need_comparable_numbers_of_images() -> None:
    """One limit must not ask for far more images than the others: then the policy never passes where they do."""
    found = plan_policy(named()["default"], 0.01)
    rows = {row.images: row for row in found.rows}
    assert rows[12_000].all_pass > 0.7
    assert rows[18_800].all_pass > 0.97
    alone = [count for count in found.needed[0].limits.values() if count is not None]
    assert len(alone) == 3
    assert max(alone) < 1.7 * min(alone)
    assert all(row.wrong_fail <= 0.02 for row in found.rows)
    # At 1 % of flips and 4 pp of each class, as it was, one candidate of a hundred passed.
    before = policy_from({"drop": {"max": "0.3pp"}, "classes": {"max": "4pp"}, "flips": {"max": "1pp"}})
    assert plan_policy(before, 0.01, sizes=(7_094,)).rows[0].all_pass < 0.1


def test_row47_of_one_limit_the_simulation_says_what_the_exact_chance_is() -> None:
    simulated = plan_policy(policy_from({"drop": {"max": "0.3pp"}}), 0.01)
    exactly = plan(0.003, 0.01, sizes=[row.images for row in simulated.rows])
    exact = {row.images: row.right_pass for row in exactly.rows}
    for row in simulated.rows:
        assert row.all_pass == pytest.approx(exact[row.images], abs=0.035)
    for found, right in zip(simulated.needed, exactly.needed, strict=True):
        assert found.power == right.power
        assert found.all == found.limits["drop"] == pytest.approx(right.images, rel=0.05)


def test_row47_a_limit_that_no_number_of_images_passes_is_named(glyphpress: Run) -> None:
    """More flips than the limit allows never pass, however many images there are."""
    words = ("gate", "plan", "--policy", "default", "--discordance", "2%", "--power", "0.8")
    assert "flips alone more than 1,000,000" in glyphpress(*words).out
    [needed] = json.loads(glyphpress(*words, "--json").out)["needed"]
    assert needed["power"] == 0.8
    assert needed["all"] is None
    assert needed["limits"]["flips"] is None
    assert 1_000 < needed["limits"]["drop"] < 20_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "default", "--drop", "1pp"), "--drop goes with --margin"),
        (("--policy", "default", "--confidence", "0.9"), "--confidence goes with --margin"),
        (("--margin", "1pp", "--classes", "10"), "--classes goes with --policy"),
    ],
)
def test_options_of_the_other_kind_of_plan_are_refused(glyphpress: Run, words: tuple[str, ...], said: str) -> None:
    ended = glyphpress("gate", "plan", "--discordance", "1%", *words)
    assert ended.code == 2
    assert said in ended.err


def test_row47_what_cannot_be_simulated_is_named(glyphpress: Run) -> None:
    found = json.loads(glyphpress("gate", "plan", "--policy", "strict", "--discordance", "0.5%", "--json").out)
    assert {"ece", "stress", "p50_ratio"} <= set(found["left_out"])
    assert set(found["rows"][0]["passes"]) == {"drop", "classes", "flips"}
    text = glyphpress("gate", "plan", "--policy", "smoke", "--discordance", "1%", "--classes", "10").out
    assert "drop PASS  flips PASS  all PASS" in text


def test_row47_one_of_margin_and_policy_is_asked_for(glyphpress: Run) -> None:
    for words in ((), ("--margin", "1pp", "--policy", "default")):
        assert "either --margin" in glyphpress("gate", "plan", "--discordance", "1%", *words).err
    with pytest.raises(UsageProblem, match="nothing to simulate"):
        plan_policy(policy_from({"size": {"max": "1KB"}}), 0.01)
