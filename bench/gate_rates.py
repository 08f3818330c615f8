"""How often the accuracy gate errs: `python -m bench.gate_rates`, a few seconds.

Draws paired outcomes from a known truth and judges them by the gate's own decision (`paired_difference.decide`) and by
two rules that other tools use. The exact probability (`paired_difference.chance`) stands beside each rate. Writes
`results/gate_rates.json`; each rate comes from 20,000 draws with a fixed seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betainc

from toolchain.core.files import whole_file
from toolchain.core.quantities import percent_text
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome, normal_quantile
from toolchain.stats.paired_difference import Floats, Truth, chance

RESULTS = Path(__file__).resolve().parent / "results" / "gate_rates.json"
SCHEMA = "glyphpress/gate-rates/1"
MARGIN, DRAWS, SEED = 0.003, 20_000, 3
SIZES = (1_000, 4_000, 18_800)
DISCORDANCES = (0.005, 0.01, 0.02)
SCAN = (*range(200, 1_500, 37), *range(1_500, 4_000, 171), *range(4_000, 20_001, 1_600))
SCANNED = (MARGIN, 0.0036, 0.005, 0.007, 0.01, 0.02, 0.05)
"""The grid of image counts (SCAN) and discordances that is searched for the worst rates; a discordance below the margin
cannot have a drop of that size."""

Judge = Callable[[Floats, Floats, int, float], Any]


def by_gate(lost: Floats, gained: Floats, count: int, margin: float) -> Any:
    return paired_difference.decide(lost, gained, count, margin)


def by_threshold(lost: Floats, gained: Floats, count: int, margin: float) -> Any:
    """Fail when the observed drop exceeds the margin, pass otherwise."""
    return np.where((lost - gained) / count > margin, Outcome.FAIL, Outcome.PASS)


def by_mcnemar(lost: Floats, gained: Floats, _count: int, _margin: float) -> Any:
    """Fail when the candidate reads worse and McNemar's exact two-sided test has p < 0.05, pass otherwise."""
    one_sided = betainc(np.maximum(lost, 1), gained + 1, 0.5)
    return np.where((lost > gained) & (2 * one_sided < 0.05), Outcome.FAIL, Outcome.PASS)


def by_one_sided_mcnemar(lost: Floats, gained: Floats, _count: int, _margin: float) -> Any:
    """Do the same with the one-sided normal approximation, the most lenient form of the rule."""
    spread = np.sqrt(np.maximum(lost + gained, 1))
    return np.where((lost - gained) / spread > normal_quantile(0.95), Outcome.FAIL, Outcome.PASS)


RULES: dict[str, Judge] = {"gate": by_gate, "threshold": by_threshold, "McNemar": by_mcnemar}


@dataclass(frozen=True)
class Rate:
    """The share of draws, and the exact probability that it estimates."""

    drawn: float
    exact: float


@dataclass(frozen=True)
class Cell:
    """One rule on `images` images. false_pass: the true drop is the margin; right_pass and false_fail: it is zero."""

    rule: str
    images: int
    discordance: float
    false_pass: Rate
    right_pass: Rate
    false_fail: Rate


def exact(judge: Judge, truth: Truth, outcome: Outcome, margin: float = MARGIN) -> float:
    """Return the exact probability that a rule gives PASS or FAIL."""

    def judged(lost: Floats, gained: Floats) -> Any:
        return judge(lost, gained, truth.count, margin)

    if outcome is Outcome.FAIL:
        return chance(truth, lambda *table: judged(*table) == Outcome.FAIL)
    return 1 - chance(truth, lambda *table: judged(*table) != Outcome.PASS)


def simulate(*, draws: int = DRAWS, seed: int = SEED, margin: float = MARGIN) -> list[Cell]:
    """Return a cell for each rule, number of images and discordance; every rule judges the same draws."""
    generator = np.random.default_rng(seed)
    cells = []
    for images in SIZES:
        for discordance in DISCORDANCES:
            truths = [_truth(images, drop, discordance) for drop in (margin, 0.0)]
            tables = [
                generator.multinomial(images, [t.lost, t.gained, 1 - t.lost - t.gained], size=draws).T for t in truths
            ]
            for rule, judge in RULES.items():
                at_margin, no_drop = (judge(table[0], table[1], images, margin) for table in tables)
                rates = (
                    Rate(float(np.mean(outcomes == outcome)), exact(judge, truth, outcome, margin))
                    for outcomes, truth, outcome in (
                        (at_margin, truths[0], Outcome.PASS),
                        (no_drop, truths[1], Outcome.PASS),
                        (no_drop, truths[1], Outcome.FAIL),
                    )
                )
                cells.append(Cell(rule, images, discordance, *rates))
    return cells


def _truth(images: int, drop: float, discordance: float) -> Truth:
    truth = Truth.of(images, drop, discordance)
    assert truth is not None, "every discordance here is larger than the margin"
    return truth


def claims() -> dict[str, float]:
    """Return the exact figures that the documentation quotes for other tools' rules, and for the gate at its worst."""
    unchanged, dropped = _truth(1_000, 0.0, 0.022), _truth(1_000, 0.006, 0.022)
    figures = {
        "0.5 pp threshold, 1,000 images, discordance 2.2 %: unchanged models failed": exact(
            by_threshold, unchanged, Outcome.FAIL, 0.005
        ),
        "0.5 pp threshold, 1,000 images, discordance 2.2 %: true 0.6 pp drops caught": exact(
            by_threshold, dropped, Outcome.FAIL, 0.005
        ),
    }
    for name, judge in (("exact two-sided", by_mcnemar), ("one-sided z", by_one_sided_mcnemar)):
        for discordance in (0.02, 0.03, 0.05):
            key = f"McNemar {name}, 100 images, discordance {discordance:.0%}: true 1 pp drops let through"
            figures[key.replace("%", " %")] = exact(judge, _truth(100, 0.01, discordance), Outcome.PASS)
    for outcome in (Outcome.PASS, Outcome.FAIL):
        worst = max(worst_at_margin(outcome).items(), key=lambda item: item[1])
        key = (
            f"gate at its margin of 0.3 pp: worst false {outcome} of {len(SCAN)} numbers of images from 200 to 20,000 "
            f"and discordances from 0.3 % (nothing gained) to 5 %, found at {worst[0][0]:,} and {worst[0][1]:.2%}"
        )
        figures[key.replace("%", " %").replace("  %", " %")] = worst[1]
    return figures


def worst_at_margin(outcome: Outcome) -> dict[tuple[int, float], float]:
    """Return the exact probability of PASS or FAIL when the true drop is the margin, by images and discordance."""
    return {
        (images, discordance): exact(by_gate, _truth(images, MARGIN, discordance), outcome)
        for images in SCAN
        for discordance in SCANNED
    }


def table(cells: list[Cell]) -> str:
    """Return the rates as plain lines, each with its exact value in brackets."""
    heads = ("false PASS at the margin", "right PASS, no drop", "false FAIL, no drop")
    lines = [f"{'rule':10} {'images':>7} {'discordance':>11}  " + "  ".join(f"{head:>24}" for head in heads)]
    for cell in cells:
        rates = (cell.false_pass, cell.right_pass, cell.false_fail)
        columns = "  ".join(f"{f'{percent_text(r.drawn)} [{percent_text(r.exact)}]':>24}" for r in rates)
        lines.append(f"{cell.rule:10} {cell.images:7,} {percent_text(cell.discordance):>11}  {columns}")
    return "\n".join(lines)


def main() -> None:
    cells, figures = simulate(), claims()
    stored = {"schema": SCHEMA, "margin": MARGIN, "confidence": 0.95, "draws": DRAWS, "seed": SEED}
    with whole_file(RESULTS, force=True) as part:
        part.write_text(
            json.dumps(stored | {"cells": [asdict(cell) for cell in cells], "claims": figures}, indent=1) + "\n"
        )
    print(f"margin 0.3 pp, {DRAWS:,} draws a cell, seed {SEED}; exact chances in brackets")
    print(table(cells))
    print(*(f"{percent_text(share):>8}  {claim}" for claim, share in figures.items()), sep="\n")


if __name__ == "__main__":
    main()
