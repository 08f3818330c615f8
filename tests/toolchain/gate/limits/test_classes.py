"""Many questions of a kind at once: the worst is named, chance among many is not, Holm by its closed test."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.load import load
from tests.fixtures.small_readers import linear_reader, pair, ridge, written
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.compare import Pairs, comparison
from toolchain.gate.candidate import evaluate_file
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.classes import ClassesLimit, judge_classes
from toolchain.gate.multiple_tests import Question, decide, holm, judge_together
from toolchain.gate.policy import policy_from
from toolchain.stats import paired_difference
from toolchain.stats.decision import Outcome


def several(*questions: Question, confidence: float = 0.95) -> Verdict:
    return judge_together("classes", questions, confidence=confidence, action="fail", what="class")


def classes(*rows: tuple[int, int], count: int = 400, margin: float = 0.02) -> Verdict:
    return several(*(Question(chr(ord("a") + k), *row, count, margin) for k, row in enumerate(rows)))


def test_the_class_that_lost_is_named_though_accuracy_as_a_whole_passes() -> None:
    """120 images of class 3 are lost, and as many of the others gained."""
    pairs = Pairs.of(*pair(120, 115, 20_000))
    policy = policy_from({"drop": {"max": "0.3pp"}, "classes": {"max": "2pp"}})
    drop, found = judge(policy, Evidence(pairs))
    assert drop.outcome is Outcome.PASS
    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith(
        "by class, 1 of 10 fell beyond the margin of 2 pp with 95 % confidence, Holm-corrected"
    )
    assert "'3' " in found.reason
    row = comparison(pairs).per_class[3]
    assert (found.measured, found.bound) == (
        row.drop,
        float(paired_difference.lower_bound(row.lost, row.gained, row.images)),
    )
    assert [part.name for part in found.parts if part.outcome is Outcome.FAIL] == ["3"]
    assert len(found.parts) == 10


def test_real_emnist_images_show_the_classes_that_a_broken_file_cannot_read(emnist_root: Path, tmp_path: Path) -> None:
    train, data = (load(f"{emnist_root / 'resplit'}:digits", split) for split in ("train", "test"))
    linear = ridge(train.take(np.arange(4_000), "first 4,000"))
    base, rounded, broken = (
        evaluate_file(linear_reader(tmp_path / name, linear=linear, **damage), data)
        for name, damage in (("a.onnx", {}), ("b.onnx", {"step": 1e-5}), ("c.onnx", {"dead": (4, 7)}))
    )
    limit = ClassesLimit(max=0.02)
    assert judge_classes(limit, Pairs.of(base, rounded)).outcome is Outcome.PASS
    found = judge_classes(limit, Pairs.of(base, broken))
    assert found.outcome is Outcome.FAIL
    assert {part.name for part in found.parts if part.outcome is Outcome.FAIL} == {"4", "7"}


def test_a_class_without_images_cannot_be_judged() -> None:
    labels = np.arange(900) % 9
    pairs = Pairs.of(written(labels, labels, name="a"), written(labels, labels, name="b"))
    with pytest.raises(EvidenceError, match="classes: no images of class '9', so it cannot be judged"):
        judge_classes(ClassesLimit(max=0.02), pairs)
    with pytest.raises(EvidenceError, match="there is no class to judge"):
        several()


@pytest.mark.parametrize(
    ("rows", "outcome", "words"),
    [
        pytest.param(
            [(2, 1), (0, 0), (4, 4)],
            Outcome.PASS,
            "by class, all 3 stay within the margin of 2 pp with 95 % confidence; closest to it is 'c' 0.00 pp, at "
            "most 1.34 (4 worse, 4 better of 400)",
            id="all within",
        ),
        pytest.param(
            [(2, 1), (9, 5), (40, 0), (30, 1)],
            Outcome.FAIL,
            "by class, 2 of 4 fell beyond the margin of 2 pp with 95 % confidence, Holm-corrected for 4: 'c' 10.00 pp, "
            "at least 7.80 (40 worse, 0 better of 400), 'd' 7.25 pp",
            id="two beyond, one open, the worst first",
        ),
        pytest.param(
            [(2, 1), (9, 5), (6, 1)],
            Outcome.INCONCLUSIVE,
            "by class, 2 of 3 cannot be decided against the margin of 2 pp with 95 % confidence: 'c' 1.25 pp, at "
            "most 2.66 "
            "(6 worse, 1 better of 400), 'b' 1.00 pp",
            id="open ones",
        ),
        pytest.param(
            [(2, 1), (8, 0)],
            Outcome.INCONCLUSIVE,
            "the drop of 'b' equals its margin, so no number of images would decide",
            id="at the margin",
        ),
    ],
)
def test_the_reason_tells_which_and_how_much(rows: list[tuple[int, int]], outcome: Outcome, words: str) -> None:
    found = classes(*rows)
    assert found.outcome is outcome
    assert words in found.reason


def test_margins_of_their_own_are_told_apart() -> None:
    found = several(Question("0O", 30, 10, 800, 0.01), Question("1I", 30, 10, 800, 0.2))
    assert "against their margins" in found.reason
    assert "(30 worse, 10 better of 800, margin 1 pp)" in found.reason
    assert [part.outcome for part in found.parts] == [Outcome.INCONCLUSIVE, Outcome.PASS]
    assert found.threshold == 0.01


@given(st.lists(st.sampled_from([0.0005, 0.004, 0.01, 0.0125, 0.02, 0.05, 0.3]), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls exactly when every set of hypotheses that holds it falls by Bonferroni."""
    alpha, names = 0.05, range(len(p_values))
    sets = [set(s) for size in range(1, len(p_values) + 1) for s in combinations(names, size)]
    fallen = [s for s in sets if min(p_values[k] for k in s) <= alpha / len(s)]
    assert holm(p_values, alpha).tolist() == [all(s in fallen for s in sets if k in s) for k in names]


def test_holm_as_published() -> None:
    """The example of Holm's step-down in many texts: 0.01, 0.04, 0.03, 0.005 at 5 %."""
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [True, False, False, True]
    assert holm([[0.01, 0.04], [0.2, 0.01]], 0.05).tolist() == [[True, True], [False, True]]


def drawn(truths: list[tuple[float, float]], images: int, draws: int) -> NDArray[np.int64]:
    """Worse and better of each question, int64 [2, draws, questions]."""
    random = np.random.default_rng(11)
    tables = [random.multinomial(images, [b, c, 1 - b - c], size=draws)[:, :2] for b, c in truths]
    return np.moveaxis(np.array(tables), (0, 1, 2), (2, 1, 0))


@pytest.mark.parametrize(
    ("margin", "gained"),
    [
        pytest.param(0.02, 0.01, id="2 pp, some gained"),
        pytest.param(0.05, 0.01, id="5 pp, some gained"),
        pytest.param(0.05, 0.0, id="5 pp, none gained"),
    ],
)
def test_among_47_classes_at_the_margin_hardly_ever_one_fails(margin: float, gained: float) -> None:
    """The normal tail of the statistic would fail one in 7 to 8.5 % of these draws."""
    worse, better = drawn([(margin + gained, gained)] * 47, 400, 2_000)
    failed = (decide(worse, better, 400, margin) == Outcome.FAIL).any(axis=1)
    assert np.mean(failed) <= 0.05


def test_one_bad_class_among_47_is_hardly_ever_passed() -> None:
    worse, better = drawn([(0.03, 0.01), *[(0.002, 0.002)] * 46], 400, 4_000)
    passed = (decide(worse, better, 400, 0.02) == Outcome.PASS).all(axis=1)
    assert np.mean(passed) <= 0.055


def test_honest_classes_do_not_fail() -> None:
    worse, better = drawn([(0.01, 0.01)] * 47, 400, 1_000)
    assert not (decide(worse, better, 400, 0.02) == Outcome.FAIL).any(axis=1).mean() > 0.002


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6), st.floats(0.002, 0.2))
def test_a_part_never_fails_unless_it_fails_alone_and_passes_as_alone(
    rows: list[tuple[int, int]], margin: float
) -> None:
    found = classes(*rows, margin=margin)
    for part, (worse, better) in zip(found.parts, rows, strict=True):
        alone = paired_difference.decide(worse, better, 400, margin)
        assert (part.outcome is Outcome.PASS) == (alone == Outcome.PASS)
        assert part.outcome is not Outcome.FAIL or alone == Outcome.FAIL
        assert part.samples_needed is None or part.samples_needed > part.images


@pytest.mark.parametrize(
    ("shares", "outcome"),
    [
        pytest.param([(0.010, 0.006)] * 3, Outcome.PASS, id="below the margin"),
        pytest.param([(0.05, 0.01)] * 2, Outcome.FAIL, id="beyond it"),
    ],
)
def test_the_number_of_images_decides_all_open_parts_at_once(
    shares: list[tuple[float, float]], outcome: Outcome
) -> None:
    margin, count = (0.012, 500) if outcome is Outcome.PASS else (0.03, 200)
    found = classes(*((round(b * count), round(c * count)) for b, c in shares), count=count, margin=margin)
    assert found.outcome is Outcome.INCONCLUSIVE
    needed: Any = found.samples_needed
    assert f"about {needed:,} images like these of each class would decide (80 % power)" in found.reason
    worse, better = drawn(shares, needed, 600)
    decided = (decide(worse, better, needed, margin) == outcome).all(axis=1)
    assert np.mean(decided) >= 0.77
