"""The file to ship: the best one that passes, or float again where none is shown to be better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolchain.report.report import Row
from toolchain.verdict.evidence import Evidence
from toolchain.verdict.gate import Outcome, judge, overall
from toolchain.verdict.policy import Policy

_GIVEN_BACK = (
    "no candidate is shown to pass and to be smaller or faster than float, so float is given back: ship {}, or try "
    "another recipe"
)


def chosen(
    rows: Sequence[Row], evidence: Sequence[Evidence], policy: Policy
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Return the rows with the winner marked, and what is to be said of it.

    Rivals are the pressed files with a cost; one that passes as the chosen one of all of them, and is smaller or faster
    than float, beats float. Of those the winner is the fastest, and of equals the smallest, one that is neither slower
    nor larger than float before any that is. Where none beats float the fastest float file that did not fail wins.
    evidence: of all rows but the first, the baseline.
    """
    rivals = [
        (row, proof)
        for row, proof in zip(rows[1:], evidence, strict=True)
        if row.recipe != "float" and row.cost is not None
    ]
    held = [row for row, proof in rivals if overall(judge(policy, proof, competitors=len(rivals))) is Outcome.PASS]
    best = min((row for row in held if _beats_float(row)), key=_rank, default=None)
    given_back = bool(rivals) and best is None
    if given_back:
        best = min((row for row in rows if row.recipe == "float" and _unfailed(row)), key=_rank)
    notes = (_GIVEN_BACK.format(best.name),) if given_back and best else ()
    return tuple(replace(row, winner=row is best) for row in rows), notes


def _beats_float(row: Row) -> bool:
    return row.faster or row.smaller


def _rank(row: Row) -> tuple[bool, float, int]:
    return row.slower or row.larger, row.cost or 0.0, row.bytes


def _unfailed(row: Row) -> bool:
    return row.baseline or row.outcome is Outcome.PASS
