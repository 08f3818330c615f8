"""Tango's score interval against published figures, its closed forms, its symmetry and its coverage."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import EvidenceError
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome

Z = NormalDist().inv_cdf(0.95)


@pytest.mark.parametrize(
    ("lost", "gained", "count", "confidence", "expected"),
    [
        # Tango 1998, section 6.1, table V: cross-over trial on soft contact lenses, one limit is printed.
        pytest.param(1, 0, 44, 0.90, (None, "0.096"), id="Tango 1998 contact lenses"),
        # Cavo et al. 2012 in Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables, chapter 8.
        pytest.param(6, 16, 161, 0.95, ("-0.1240", "-0.0054"), id="Cavo 2012"),
        # R's PropCIs::scoreci.mp(25, 28, 618, 0.90), whose difference is the second count minus the first.
        pytest.param(28, 25, 618, 0.90, ("-0.0148", "0.0247"), id="PropCIs"),
    ],
)
def test_published_intervals(
    lost: int, gained: int, count: int, confidence: float, expected: tuple[str | None, str]
) -> None:
    for found, printed in zip(paired_difference.interval(lost, gained, count, confidence), expected, strict=True):
        if printed is not None:
            assert f"{found:.{len(printed.split('.')[1])}f}" == printed


def test_published_statistic() -> None:
    assert paired_difference.score(1, 0, 44, 0.1) == pytest.approx(-1.709, abs=5e-4)  # Tango 1998, page 902


@pytest.mark.parametrize("count", [1, 10, 360, 18_800])
def test_exact_bounds_at_the_edges(count: int) -> None:
    share = (count - Z * Z) / (count + Z * Z)
    assert paired_difference.upper_bound(0, 0, count) == pytest.approx(Z * Z / (count + Z * Z), rel=1e-12)
    assert paired_difference.lower_bound(0, 0, count) == pytest.approx(-Z * Z / (count + Z * Z), rel=1e-12)
    assert paired_difference.upper_bound(count, 0, count) == 1.0
    assert paired_difference.lower_bound(count, 0, count) == pytest.approx(share, rel=1e-12)
    assert paired_difference.lower_bound(0, count, count) == -1.0
    assert paired_difference.upper_bound(0, count, count) == pytest.approx(-share, rel=1e-12)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    lost, gained = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    return lost, gained, max(1, lost + gained + draw(st.integers(0, 30_000)))


@settings(max_examples=60)
@given(tables(), st.floats(0.6, 0.999))
def test_bounds_solve_the_score_equation_around_the_drop(table: tuple[int, int, int], confidence: float) -> None:
    lost, gained, count = table
    low, high = (
        float(paired_difference.lower_bound(*table, confidence)),
        float(paired_difference.upper_bound(*table, confidence)),
    )
    z = NormalDist().inv_cdf(confidence)
    assert -1 <= low <= (lost - gained) / count <= high <= 1
    if high < 1:
        assert paired_difference.score(*table, high) == pytest.approx(-z, abs=1e-5)
    if low > -1:
        assert paired_difference.score(*table, low) == pytest.approx(z, abs=1e-5)


@settings(max_examples=60)
@given(tables())
def test_swapping_the_two_models_mirrors_the_interval(table: tuple[int, int, int]) -> None:
    lost, gained, count = table
    low, high = paired_difference.interval(lost, gained, count)
    assert paired_difference.interval(gained, lost, count) == (-high, -low)


@settings(max_examples=60)
@given(tables())
def test_losing_one_more_image_never_lowers_the_bound(table: tuple[int, int, int]) -> None:
    lost, gained, count = table
    assert paired_difference.upper_bound(lost + 1, gained, count + 1) >= paired_difference.upper_bound(
        lost, gained, count + 1
    )


@pytest.mark.parametrize(("count", "discordance"), [(1_000, 0.02), (4_000, 0.01), (18_800, 0.01)])
def test_upper_bound_covers_the_true_drop(count: int, discordance: float) -> None:
    drop = 0.003
    lost, gained = (discordance + drop) / 2, (discordance - drop) / 2
    draws = np.random.default_rng(7).multinomial(count, [lost, gained, 1 - discordance], size=20_000)
    covered = np.mean(paired_difference.upper_bound(draws[:, 0], draws[:, 1], count) >= drop)
    assert 0.94 <= covered <= 0.965


def test_the_number_of_images_has_the_power_it_promises() -> None:
    lost, gained, margin = 0.006, 0.005, 0.003
    needed = paired_difference.pairs_to_decide(lost, gained, margin)
    assert needed is not None
    draws = np.random.default_rng(3).multinomial(needed, [lost, gained, 1 - lost - gained], size=20_000)
    assert np.mean(paired_difference.upper_bound(draws[:, 0], draws[:, 1], needed) < margin) == pytest.approx(
        0.8, abs=0.02
    )


def test_without_any_change_the_number_of_images_is_the_closed_form() -> None:
    needed = paired_difference.pairs_to_decide(0, 0, 0.003)
    assert needed == 900
    assert paired_difference.upper_bound(0, 0, needed) < 0.003 < paired_difference.upper_bound(0, 0, needed - 1)
    assert paired_difference.pairs_to_decide(0.004, 0.001, 0.003) is None


@pytest.mark.parametrize("table", [(0, 0, 0), (-1, 0, 5), (3, 3, 5), (float("nan"), 0, 5)])
def test_counts_that_are_no_pairs_are_refused(table: tuple[float, float, float]) -> None:
    with pytest.raises(EvidenceError):
        paired_difference.upper_bound(*table)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(EvidenceError, match=r"such as 0\.95"):
        paired_difference.upper_bound(1, 1, 10, confidence)


@settings(max_examples=60)
@given(tables(), st.floats(0.0005, 0.5), st.floats(0.55, 0.999))
def test_a_decision_is_what_the_bounds_say(table: tuple[int, int, int], margin: float, confidence: float) -> None:
    low, high = (
        float(bound(*table, confidence)) for bound in (paired_difference.lower_bound, paired_difference.upper_bound)
    )
    said = "PASS" if high < margin else "FAIL" if low > margin else "INCONCLUSIVE"
    assert paired_difference.decide(*table, margin, confidence).item() == said


def test_many_tables_are_decided_in_one_call() -> None:
    found = paired_difference.decide([6, 60, 200], [4, 5, 5], 18_800, 0.003)
    assert found.tolist() == [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
