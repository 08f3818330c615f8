"""`gate plan --policy`: what a whole policy asks for, by simulation."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Finished
from toolchain.core.errors import UsageProblem
from toolchain.gate.plan import plan, plan_policy
from toolchain.gate.policy import named, policy_from

Run = Callable[..., Finished]


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
