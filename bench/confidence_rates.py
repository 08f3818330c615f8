"""How often the limits `[rejects]` and `[ece]` err at their margins: `python -m bench.confidence_rates`, ten minutes.

Draws images with replacement from populations of 300,000 images that two readers answered, so that the true rise is
known. The limit is set to exactly that rise, so every PASS and every FAIL is wrong. Writes
`results/confidence_rates.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolchain.core.files import whole_file
from toolchain.core.quantities import percent_text, points_text
from toolchain.gate.limits.confidence import Answered, Rise, ece, ece_rise, reject_rise, rejection

RESULTS = Path(__file__).resolve().parent / "results" / "confidence_rates.json"
SCHEMA = "glyphpress/confidence-rates/1"
POPULATION, SEED, CONFIDENCE = 300_000, 5, 0.95
DRAWS = {"rejects": 300, "ece": 120}
"""Number of draws by limit; a calibration error takes longer to judge."""
SIZES = (200, 600, 2_000, 6_000, 18_800)


@dataclass(frozen=True)
class Readers:
    """A baseline and a candidate.

    ease: mean log odds of a correct answer; they vary between images with a standard deviation of 2.5. sharpness: the
    baseline's log odds of confidence as a multiple of the true ones; 1 is calibrated. noise: standard deviation of what
    the candidate adds to its log odds of confidence. sharper: what it multiplies them by. worse: how far its odds of a
    correct answer fall. error: the largest error of `[rejects]`.
    """

    ease: float
    sharpness: float
    noise: float
    sharper: float
    worse: float
    error: float


CASES = {
    "98 % right, calibrated; noisier": Readers(6.5, 1.0, 0.6, 1.0, 0.3, 0.005),
    "91 % right, calibrated; noisier": Readers(4.0, 1.0, 0.8, 1.0, 0.3, 0.03),
    "91 % right, calibrated; sharper": Readers(4.0, 1.0, 0.2, 1.15, 0.1, 0.03),
    "91 % right, too unsure; sharper": Readers(4.0, 0.5, 0.2, 1.1, 0.2, 0.03),
    "91 % right, too sure; calmer": Readers(4.0, 2.0, 0.2, 0.9, 0.2, 0.03),
    "91 % right, too sure; hardly changed": Readers(4.0, 1.4, 0.1, 1.03, 0.1, 0.01),
}


@dataclass(frozen=True)
class Cell:
    """One limit on `images` images, set to the true rise. wrong_pass, wrong_fail: shares of draws."""

    case: str
    limit: str
    images: int
    truth: float
    wrong_pass: float
    wrong_fail: float


def population(readers: Readers, rng: np.random.Generator, size: int) -> tuple[Answered, Answered]:
    """Return the answers of both readers among ten classes; their confidences are correlated image by image."""
    odds, chance = rng.normal(readers.ease, 2.5, size), rng.random(size)
    after = odds - readers.worse * np.abs(rng.normal(0, 1, size))
    baseline = readers.sharpness * odds
    candidate = (baseline + rng.normal(0, readers.noise, size)) * readers.sharper
    return _answered(baseline, chance < _share(odds)), _answered(candidate, chance < _share(after))


def _share(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float64)


def _answered(odds: NDArray[np.float64], right: NDArray[np.bool_]) -> Answered:
    # The most likely of ten classes has a probability of at least 0.1.
    return Answered((0.1 + 0.9 * _share(odds)).astype(np.float32), right)


def simulate(
    sizes: Sequence[int] = SIZES,
    *,
    cases: Sequence[str] = tuple(CASES),
    draws: Mapping[str, int] = DRAWS,
    seed: int = SEED,
    population_size: int = POPULATION,
) -> Iterator[Cell]:
    """Yield a cell for each case, number of images and limit. draws: how many to judge by each limit."""
    for case in cases:
        readers, rng = CASES[case], np.random.default_rng(seed)
        both = population(readers, rng, population_size)
        for images in sizes:
            drawn = [rng.integers(0, population_size, images) for _ in range(max(draws.values()))]
            for limit, count in draws.items():
                truth = _truth(limit, readers, *both)
                rises = [
                    _rise(limit, readers, *(_selected(answers, chosen) for answers in both)) for chosen in drawn[:count]
                ]
                yield Cell(case, limit, images, truth, *_wrong(rises, truth))


def _truth(limit: str, readers: Readers, before: Answered, after: Answered) -> float:
    if limit == "ece":
        old, new = (ece(answers.confidence, answers.right) for answers in (before, after))
    else:
        old, new = (rejection(answers.confidence, answers.right, readers.error).rate for answers in (before, after))
    return new - old


def _rise(limit: str, readers: Readers, before: Answered, after: Answered) -> Rise:
    if limit == "ece":
        return ece_rise(before, after, CONFIDENCE)
    return reject_rise(before, after, readers.error, CONFIDENCE)


def _selected(answers: Answered, chosen: NDArray[np.int64]) -> Answered:
    return Answered(answers.confidence[chosen], answers.right[chosen])


def _wrong(rises: Sequence[Rise], truth: float) -> tuple[float, float]:
    """Return the shares of PASS and FAIL of a limit that equals the truth; a true fall is mirrored to a rise."""
    turned = [rise if truth >= 0 else rise.mirrored for rise in rises]
    passed = sum(rise.upper < abs(truth) for rise in turned)
    failed = sum(rise.lower > abs(truth) for rise in turned)
    return passed / len(rises), failed / len(rises)


def line(cell: Cell) -> str:
    """Return one cell as a line."""
    rates = f"wrong PASS {percent_text(cell.wrong_pass):>7}  wrong FAIL {percent_text(cell.wrong_fail):>7}"
    return f"{cell.case:37} {cell.limit:8} {cell.images:7,} at {points_text(cell.truth):>5} pp  {rates}"


def main() -> None:
    cells = []
    for cell in simulate():
        print(line(cell), flush=True)
        cells.append(cell)
    stored = {"schema": SCHEMA, "confidence": CONFIDENCE, "population": POPULATION, "draws": DRAWS, "seed": SEED}
    with whole_file(RESULTS, force=True) as part:
        part.write_text(json.dumps(stored | {"cells": [asdict(cell) for cell in cells]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
