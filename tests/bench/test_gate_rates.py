"""The published error rates of the gate: still those of the code, and within what the gate promises."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bench.gate_rates import DISCORDANCES, MARGIN, RESULTS, RULES, SIZES, claims, exact, simulate
from tests.fixtures.small_readers import pair
from toolchain.evaluation.compare import Pairs
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.policy import policy_from
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import Truth

MOST = 0.055
POLICY = policy_from({"drop": {"max": "0.3pp"}})


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return kept


def test_the_stored_rates_hold_the_bound(stored: dict[str, Any]) -> None:
    own = [cell for cell in stored["cells"] if cell["rule"] == "gate"]
    assert {(cell["images"], cell["discordance"]) for cell in own} == {(n, d) for n in SIZES for d in DISCORDANCES}
    assert stored["draws"] >= 20_000
    assert all(max(cell["false_pass"].values()) <= MOST for cell in own)
    assert all(max(cell["false_fail"].values()) <= 0.011 for cell in own)


def test_the_stored_chances_are_recomputed(stored: dict[str, Any]) -> None:
    kinds = (("false_pass", MARGIN, Outcome.PASS), ("right_pass", 0.0, Outcome.PASS), ("false_fail", 0.0, Outcome.FAIL))
    for cell in stored["cells"]:
        for name, drop, outcome in kinds:
            truth = Truth.of(cell["images"], drop, cell["discordance"])
            assert truth is not None
            assert exact(RULES[cell["rule"]], truth, outcome) == pytest.approx(cell[name]["exact"], abs=1e-9)
            # Four standard errors of 20,000 draws.
            assert cell[name]["drawn"] == pytest.approx(cell[name]["exact"], abs=0.0145)
    assert claims() == pytest.approx(stored["claims"], abs=1e-9)


def test_a_fresh_simulation_holds_the_bound_too() -> None:
    cells = [cell for cell in simulate(draws=4_000, seed=8) if cell.rule == "gate"]
    assert np.mean([cell.false_pass.drawn for cell in cells]) <= 0.05
    assert all(cell.false_pass.drawn <= MOST + 0.01 for cell in cells)
    assert all(cell.false_pass.exact <= MOST for cell in cells)


def test_the_simulated_decision_is_the_verdict_of_the_gate() -> None:
    tables = np.random.default_rng(6).multinomial(1_000, [0.006, 0.002, 0.992], size=25)
    for lost, gained, _ in np.unique(tables, axis=0).tolist():
        (verdict,) = judge(POLICY, Evidence(Pairs.of(*pair(lost, gained, 1_000))))
        assert verdict.outcome == paired_difference.decide(lost, gained, 1_000, MARGIN).item()


ENUMERATED = [(n, d) for n in (200, 400, 700, 1_014, 1_199, 1_500, 2_355) for d in (0.003, 0.0036, 0.005, 0.01, 0.02)]


@pytest.mark.parametrize(("images", "discordance"), ENUMERATED, ids=lambda value: f"row49-{value}")
def test_at_the_margin_neither_side_errs_more_often_than_it_says(images: int, discordance: float) -> None:
    """By enumeration of every table that can be drawn, without the code that computes chances elsewhere."""
    lost, gained = ((discordance + sign * MARGIN) / 2 for sign in (1, -1))
    most = int(images * discordance + 12 * (images * discordance) ** 0.5 + 20)
    b, c = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")
    inside = b + c <= images
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, images + 1)))])
    b, c = b[inside], c[inside]
    rest = images - b - c
    logs = factorial[images] - factorial[b] - factorial[c] - factorial[rest] + rest * np.log1p(-discordance)
    logs = logs + b * np.log(lost) + np.where(c > 0, c * np.log(max(gained, 1e-300)), 0.0)
    chances = np.exp(logs)
    assert chances.sum() == pytest.approx(1.0, abs=1e-9)
    outcomes = paired_difference.decide(b, c, images, MARGIN)
    for outcome in (Outcome.PASS, Outcome.FAIL):
        assert chances[outcomes == outcome].sum() <= MOST


def test_row49_the_worst_of_both_sides_on_the_whole_grid_is_published(stored: dict[str, Any]) -> None:
    worst = {key: value for key, value in stored["claims"].items() if key.startswith("gate at its margin")}
    assert len(worst) == 2
    assert all(0.04 < value <= MOST for value in worst.values())


@pytest.mark.parametrize(("images", "discordance"), [(4_000, 0.01), (18_800, 0.01), (18_800, 0.02)])
def test_of_four_bad_candidates_the_winner_hardly_ever_passes(images: int, discordance: float) -> None:
    """All four drop by the margin exactly; the one that looks best is shipped if it passes."""
    truth = Truth.of(images, MARGIN, discordance)
    assert truth is not None
    shares = [truth.lost, truth.gained, 1 - discordance]
    draws = np.random.default_rng(9).multinomial(images, shares, size=(10_000, 4))
    lost, gained = draws[..., 0], draws[..., 1]
    best = np.argmin(lost - gained, axis=1)[:, None]
    winner = (np.take_along_axis(counts, best, axis=1)[:, 0] for counts in (lost, gained))
    limits = [policy.drop for policy in (POLICY, POLICY.among(4)) if policy.drop]
    table = [*winner]
    naive, corrected = (
        np.mean(paired_difference.decide(*table, images, limit.max, limit.confidence) == Outcome.PASS)
        for limit in limits
    )
    assert naive > 0.14
    assert corrected <= MOST
