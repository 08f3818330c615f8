"""The published error rates of `[rejects]` and `[ece]` at their margins, and fresh ones where a bootstrap failed."""

from __future__ import annotations

import json

import pytest

from bench.confidence_rates import CASES, DRAWS, RESULTS, SIZES, simulate

MOST = 0.055
"""Where 5 % is said; two standard errors more are left to the draws."""


def test_row49_the_stored_rates_hold_the_bound() -> None:
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    cells = {(cell["case"], cell["limit"], cell["images"]): cell for cell in stored["cells"]}
    assert set(cells) == {(case, limit, n) for case in CASES for limit in ("rejects", "ece") for n in SIZES}
    assert stored["draws"] == DRAWS
    for (_, limit, _), cell in cells.items():
        assert max(cell["wrong_pass"], cell["wrong_fail"]) <= MOST + 2 * (0.05 * 0.95 / DRAWS[limit]) ** 0.5
    for limit in ("rejects", "ece"):
        own = [cell for cell in cells.values() if cell["limit"] == limit]
        assert sum(cell["wrong_pass"] + cell["wrong_fail"] for cell in own) / len(own) <= 0.10


@pytest.mark.parametrize(
    ("case", "limit"),
    [
        pytest.param("98 % right, calibrated; noisier", "rejects", id="row49-few may be wrong"),
        pytest.param("91 % right, too sure; calmer", "rejects", id="row49-rejects"),
        pytest.param("91 % right, calibrated; sharper", "ece", id="row49-a calibrated baseline"),
    ],
)
def test_a_limit_at_the_truth_errs_as_rarely_as_it_says_where_a_bootstrap_did_not(case: str, limit: str) -> None:
    """A bootstrap passed 32, 21 and 18 % of such draws."""
    (cell,) = simulate(
        (200,), cases=[case], draws={limit: 60 if limit == "rejects" else 30}, seed=11, population_size=60_000
    )
    assert cell.wrong_pass <= 0.12  # at 5 %, more come up once in a hundred seeds
    assert cell.wrong_fail <= 0.12
