"""Stress: real files read under damage, paired only with what saw the same damage, judged kind by kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from calibration import corrupt
from calibration.dataset import Dataset
from calibration.load import load
from tests.fixtures.small_readers import digits, linear_reader
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.damaged import StressAnswers, answers_under
from toolchain.gate.candidate import read_judged_file
from toolchain.gate.limits.stress import DamageKind, StressLimit, StressPairs, judge_stress, pair_stress
from toolchain.stats.decision import Outcome


def limit(**changes: Any) -> StressLimit:
    return StressLimit(**{"max": 0.05, "kinds": ("blur", "speckle")} | changes)


def answers(path: Path, asked: StressLimit | None = None, data: Dataset | None = None) -> tuple[StressAnswers, ...]:
    data = data or digits()
    with read_judged_file(path, data).session("be read") as session:
        return answers_under(asked or limit(), session, data)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> tuple[StressAnswers, ...]:
    return answers(linear_reader(tmp_path_factory.mktemp("stress") / "float.onnx"))


def test_the_policy_and_the_images_know_the_same_kinds() -> None:
    assert get_args(DamageKind) == tuple(corrupt.KINDS)
    assert StressLimit(max=0.01).kinds == tuple(corrupt.KINDS)
    assert StressLimit(max=0.01).strengths == corrupt.STRENGTHS


def test_each_kind_is_read_once_on_images_that_are_really_damaged(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = linear_reader(tmp_path / "float.onnx")
    with read_judged_file(path, digits()).session("be read") as session:
        got = answers_under(limit(), session, digits(), progress=lambda *words: seen.append(words))
        blur = got[0]
        damaged = corrupt.damage(digits().images, "blur", blur.strengths, 0)
        assert np.array_equal(blur.answers, session.run(damaged).argmax(axis=1))
    count = len(digits())
    assert [one.kind for one in got] == ["blur", "speckle"]
    assert {label for label, _, _ in seen} == {"stress blur", "stress speckle"}
    assert seen[-1] == ("stress speckle", count, count)
    assert np.ptp(np.bincount(blur.strengths)[1:]) <= 10  # each class goes round by itself
    right = [float((one.answers == digits().labels).mean()) for one in got]
    assert max(right) < read_judged_file(path, digits()).evaluation.accuracy


def test_the_same_file_passes_and_a_broken_one_fails_by_kind(floats: tuple[StressAnswers, ...], tmp_path: Path) -> None:
    same = judge_stress(limit(), pair_stress(floats, floats), digits().labels)
    assert same.outcome is Outcome.PASS
    assert [part.name for part in same.parts] == ["blur", "speckle"]
    assert all("lost at no strength" in part.note for part in same.parts)
    broken = answers(linear_reader(tmp_path / "broken.onnx", dead=(3, 7)))
    verdict = judge_stress(limit(), pair_stress(floats, broken), digits().labels)
    assert verdict.outcome is Outcome.FAIL
    assert "'blur' lost most at strength" in verdict.reason
    assert all("lost most at strength" in part.note for part in verdict.parts)


def test_the_strength_that_is_named_is_the_one_where_most_was_lost() -> None:
    labels = np.arange(1000) % 10
    strengths = np.arange(1000) // 10 % 5 + 1
    after = np.where(strengths == 4, (labels + 1) % 10, labels)
    stress = StressPairs("faint", 0, strengths, labels, after)
    verdict = judge_stress(limit(kinds=("faint",)), (stress,), labels)
    assert verdict.outcome is Outcome.FAIL
    assert "strength 4 (100.00 pp of 200 images)" in verdict.reason
    assert verdict.measured == pytest.approx(0.2)
    assert "200 worse, 0 better of 1,000; baseline 100.00 %" in verdict.parts[0].note


def test_of_copies_that_were_damaged_differently_the_one_that_says_the_worst_counts() -> None:
    labels = np.arange(600) % 10
    ids = np.array([f"{k:032x}" for k in np.arange(600) // 2 * 2], "S32")
    labels[1::2] = labels[::2]
    # The first of each two copies is read rightly, the second is not.
    after = np.where(np.arange(600) % 2, (labels + 1) % 10, labels)
    stress = StressPairs("faint", 0, np.arange(600) // 10 % 5 + 1, labels, after)
    verdict = judge_stress(limit(kinds=("faint",)), (stress,), labels, ids)
    assert "300 worse, 0 better of 300" in verdict.parts[0].note


def test_a_baseline_that_holds_more_kinds_serves_a_policy_that_asks_for_fewer(
    floats: tuple[StressAnswers, ...],
) -> None:
    (pairs,) = pair_stress(floats, floats[1:])
    assert pairs.kind == "speckle"
    assert judge_stress(limit(kinds=("speckle",)), (pairs,), digits().labels).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"seed": 1}, "by seed 0, the candidate by 1", id="other seed"),
        pytest.param({"strengths": (1, 2)}, r"other strengths \(1, 2, 3, 4, 5 and 1, 2", id="other strengths"),
        pytest.param({"kinds": ("blur", "thick")}, "not read under 'thick'", id="kind that is not held"),
    ],
)
def test_answers_under_other_damage_are_not_paired(
    floats: tuple[StressAnswers, ...], change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    own = answers(linear_reader(tmp_path / "own.onnx", step=0.01), limit(**change))
    with pytest.raises(EvidenceError, match=said) as refused:
        pair_stress(floats, own)
    assert "store the baseline again" in str(refused.value)


def test_the_same_damage_of_other_images_is_not_paired(floats: tuple[StressAnswers, ...]) -> None:
    with pytest.raises(EvidenceError, match="saw other images under 'blur'"):
        pair_stress((replace(floats[0], sha256="0" * 64), floats[1]), floats)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param({"kinds": ("skew",)}, "'skew', which the evidence does not hold", id="kind"),
        pytest.param({"seed": 3}, "asks for seed 3", id="seed"),
        pytest.param({"strengths": (1, 2)}, "seed 0 and strengths 1, 2, 3, 4, 5; the policy", id="fewer strengths"),
    ],
)
def test_evidence_of_another_policy_is_not_judged(
    floats: tuple[StressAnswers, ...], asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(EvidenceError, match=said):
        judge_stress(limit(**asked), pair_stress(floats, floats), digits().labels)


def test_gentle_evidence_does_not_serve_a_policy_of_all_strengths(tmp_path: Path) -> None:
    gentle = answers(linear_reader(tmp_path / "float.onnx"), limit(strengths=(1,)))
    with pytest.raises(EvidenceError, match="and strengths 1; the policy asks for seed 0 and 1, 2, 3, 4, 5"):
        judge_stress(limit(), pair_stress(gentle, gentle), digits().labels)


def test_evidence_without_any_kind_or_of_other_images_is_not_judged(floats: tuple[StressAnswers, ...]) -> None:
    with pytest.raises(EvidenceError):
        judge_stress(limit(), (), digits().labels)
    with pytest.raises(EvidenceError):
        judge_stress(limit(kinds=()), pair_stress(floats, floats), digits().labels)
    with pytest.raises(EvidenceError, match="not of the 100 images"):
        judge_stress(limit(), pair_stress(floats, floats), digits().labels[:100])


def test_pairs_survive_json_and_nothing_else_is_taken_for_them(floats: tuple[StressAnswers, ...]) -> None:
    (pairs, _) = pair_stress(floats, floats)
    stored = to_json(pairs)
    again = from_json(StressPairs, json.dumps(stored))
    assert (again.kind, again.seed) == (pairs.kind, pairs.seed)
    for name in ("strengths", "before", "after"):
        assert np.array_equal(getattr(again, name), getattr(pairs, name))
    for broken in (
        {"after": [0.5] * len(stored["after"])},
        {"after": stored["after"][1:]},
        {"before": None},
        {"seed": "0"},
        {"more": 1},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(broken))}|gather the evidence again"):
            from_json(StressPairs, json.dumps(stored | broken))
    with pytest.raises(ValueError, match="is missing"):
        from_json(StressPairs, json.dumps({"kind": "blur"}))


def test_a_file_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "letters.onnx")
    other = replace(digits(), classes=tuple("abcdefghij"))
    with (
        read_judged_file(path, digits()).session("be read") as session,
        pytest.raises(EvidenceError, match="different classes"),
    ):
        answers_under(limit(), session, other)


@pytest.mark.slow
def test_the_shipped_model_reads_real_handwriting_worse_at_every_kind_gently_first_and_clearly_last(
    emnist_root: Path,
) -> None:
    import torch

    from toolchain.checkpoint import CheckpointRequest, settle

    model = settle("cnn-small", CheckpointRequest(), None).model
    test = load(f"{emnist_root / 'resplit'}:balanced", "test")
    chosen = np.random.default_rng(0).permutation(len(test))[:470]
    images, labels = test.images[chosen], test.labels[chosen]

    def accuracy(glyphs: np.ndarray) -> float:
        with torch.no_grad():
            logits = model.torch_module("the test")(
                torch.from_numpy(model.preprocess.apply(glyphs)).reshape(-1, 1, 28, 28)
            )
        return float((logits.numpy().argmax(axis=1) == labels).mean())

    clean = accuracy(images)
    for kind in corrupt.KINDS:
        gentle, hard = (accuracy(corrupt.damage(images, kind, np.full(len(images), s), 0)) for s in (1, 5))
        assert clean - gentle < 0.06, kind
        assert clean - hard > 0.08, kind
        assert hard > 0.4, kind
