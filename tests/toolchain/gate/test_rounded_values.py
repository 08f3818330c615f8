"""What is said of two values that differ must differ, and a baseline that reads nothing judges nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.session import Timings
from tests.conftest import Finished
from tests.fixtures.small_readers import digits, linear_reader, pair, written
from tests.fixtures.timings import noisy_timings
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.compare import Pairs
from toolchain.gate.candidate import read_judged_file
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.flips import FlipsLimit
from toolchain.gate.limits.memory import MemoryLimit, judge_memory
from toolchain.gate.limits.sizes import ShrinkLimit, SizeLimit, judge_shrink, judge_size
from toolchain.gate.limits.speed import TimeLimit, judge_time
from toolchain.gate.policy import Policy, policy_from
from toolchain.stats.decision import Outcome

Run = Callable[..., Finished]


def steady(nanoseconds: int) -> Timings:
    """Timings of a file that always takes as long."""
    seen = noisy_timings(np.random.default_rng(1))
    return replace(seen, samples_ns=np.full_like(seen.samples_ns, nanoseconds))


def flips() -> Verdict:
    from toolchain.gate.limits.flips import judge_flips

    evidence = Evidence(Pairs.of(*pair(0, 2_001, 20_000)))
    return judge_flips(FlipsLimit(max=0.1 + 1e-9), evidence.pairs)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        pytest.param(
            lambda: judge_size("size", SizeLimit(max=220_000), 220_461),
            r"220,461 bytes \(220 KB\), beyond the limit of 220,000 bytes",
            id="row50-size",
        ),
        pytest.param(
            lambda: judge_memory(MemoryLimit(max=32_000_000), 32_000_001),
            "add 32,000,001 bytes of resident memory, beyond the limit of 32,000,000 bytes",
            id="row50-memory",
        ),
        pytest.param(
            lambda: judge_shrink(ShrinkLimit(min=3.0), 1_000_001, 3_000_000),
            r"2\.999997 times smaller than the baseline, at least 3 asked for",
            id="row50-shrink",
        ),
        pytest.param(
            lambda: judge_time(TimeLimit(max=101_300e-9), "p50", 50.0, steady(101_400)),
            "^101,400 ns, at least 101,400 ns .* beyond the limit of 101,300 ns",
            id="row50-time",
        ),
        pytest.param(flips, r"^10\.0\d+ %", id="row50-flips"),
    ],
)
def test_a_value_and_its_limit_are_told_apart(verdict: Callable[[], Verdict], said: str) -> None:
    reason = verdict().reason
    assert re.search(said, reason), reason


def test_row50_other_images_are_told_apart_by_number_and_digest(tmp_path: Path) -> None:
    labels = np.arange(40) % 10
    saved = replace(written(labels, labels), origin=digits().origin)
    saved.save(tmp_path / "old.npz")
    with pytest.raises(EvidenceError, match=r"40 images, sha256 000000000000\) than these \(.*599 images, sha256 "):
        read_judged_file(tmp_path / "old.npz", digits())


def evidence(right: int, count: int = 1_000) -> Evidence:
    """A candidate with the answers of its baseline, which reads so many of the images."""
    labels = np.arange(count) % 10
    answers = np.where(np.arange(count) < right, labels, (labels + 1) % 10)
    return Evidence(Pairs.of(written(answers, labels), written(answers, labels, name="int8.onnx")))


def policy(**baseline: str) -> Policy:
    return policy_from({"drop": {"max": "3pp"}} | ({"baseline": baseline} if baseline else {}))


@pytest.mark.parametrize(
    ("right", "asked", "refused"),
    [
        pytest.param(100, {}, "32.50 % is required", id="row48-at chance"),
        pytest.param(320, {}, "32.00 % of the images, and chance is 10.00 %", id="row48-hardly better than chance"),
        pytest.param(330, {}, "", id="row48-well above chance"),
        pytest.param(899, {"min_accuracy": "90%"}, "89.90 %.*at least 90.00 % is required", id="row48-its own floor"),
        pytest.param(200, {"min_accuracy": "15%"}, "", id="row48-a floor that was lowered"),
    ],
)
def test_a_baseline_must_read(right: int, asked: dict[str, str], refused: str) -> None:
    if refused:
        with pytest.raises(EvidenceError, match=refused):
            judge(policy(**asked), evidence(right))
    else:
        assert judge(policy(**asked), evidence(right))[0].outcome is Outcome.PASS


def test_row48_a_baseline_that_always_gives_the_most_frequent_class_is_at_chance() -> None:
    labels = np.minimum(np.arange(1_000) % 10, 3)
    same = np.full(1_000, 3)
    with pytest.raises(EvidenceError, match=r"70\.00 % of the images, and chance is 70\.00 %.*77\.50 % is required"):
        judge(policy(), Evidence(Pairs.of(written(same, labels), written(same, labels, name="int8.onnx"))))


def test_row48_a_broken_baseline_against_itself_is_an_error(glyphpress: Run, tmp_path: Path) -> None:
    broken = linear_reader(tmp_path / "broken.onnx", dead=tuple(range(1, 10)))
    words = ("--baseline", broken, "--candidate", broken, "--data", "builtin:digits", "--policy", "smoke")
    run = glyphpress("gate", *words)
    assert (run.code, run.out) == (3, "")
    assert "min_accuracy" in run.err


def test_row48_a_press_of_a_model_at_chance_ends_before_anything_else_is_read(glyphpress: Run, tmp_path: Path) -> None:
    guesses = np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32), np.zeros(10, np.float32)
    source = linear_reader(tmp_path / "reader.onnx", linear=guesses)
    words = ("--data", "builtin:digits", "--orientation", "upright", "--scale", "0-1", "--recipe", "dynamic-int8")
    done = glyphpress("press", source, *words, "--format", "onnx", "--out", tmp_path / "out")
    assert done.code == 3
    assert "nothing can be judged against it" in done.err
    assert "evaluate reader.float.onnx" in done.err
    assert "evaluate reader.dynamic-int8.onnx" not in done.err
