"""The file that a press adds where none that was asked for is small and not slower than float.

Its weights are stored in 8 or 16 bits and expand when it is loaded, so it runs on float's own kernels: it is small on
every processor, and slower on none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolchain.gate.evidence import Evidence
from toolchain.gate.gate import judge_limit, overall
from toolchain.gate.limits import definition
from toolchain.gate.policy import Policy
from toolchain.report.report import Row
from toolchain.report.winner import fastest_float, rivals, small_and_not_slower
from toolchain.stats.decision import Outcome

RECIPES = ("weight-int8", "float16")
"""Shipped recipes, the smaller file first."""


def to_add(rows: Sequence[Row], evidence: Sequence[Evidence], policy: Policy) -> tuple[str, str] | None:
    """Return the recipe of the file to add and the float file to make it of, or None without a need or a hope.

    That is the fastest float file that passes. There is no need where a pressed file passes, is smaller
    than float and not shown to be slower, or nothing was pressed; no hope where a file that answers just as float does
    did not pass, or would not on so few images. evidence: of all rows but the first, the baseline.
    """
    base = fastest_float(rows)
    pressed = [(row, proof) for row, proof in zip(rows[1:], evidence, strict=True) if row.recipe != "float"]
    if base is None or not pressed:
        return None
    if any(small_and_not_slower(row, base) for row in rivals(rows, evidence, policy)):
        return None
    if any(small_and_not_slower(row, base) and not proof.pairs.flipped.any() for row, proof in pressed):
        return None
    if _too_few(evidence[0], policy, competitors=len(pressed) + 1):
        return None
    there = {(row.recipe, row.format) for row in rows}
    recipe = next((name for name in RECIPES if (name, base.format) not in there), None)
    return (recipe, base.name) if recipe else None


def _too_few(proof: Evidence, policy: Policy, *, competitors: int) -> bool:
    """Return whether the images cannot even show of float's own answers that they pass."""
    pairs = proof.pairs
    same = Evidence(replace(pairs, after=pairs.before, after_confidence=pairs.before_confidence))
    limits = [
        (name, limit) for name, limit in policy.among(competitors).limits() if definition(name).evidence == ("pairs",)
    ]
    verdicts = [judge_limit(name, limit, same) for name, limit in limits]
    return bool(verdicts) and overall(verdicts) is not Outcome.PASS
