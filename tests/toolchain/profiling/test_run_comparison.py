"""Two saved runs: the interval knows how much runs of one file differ, and unlike runs are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.session import Instructions, RuntimeFacts
from tests.fixtures.saved_runs import BUSY, saved_run
from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive
from toolchain.profiling.run_comparison import RunComparison, compare_runs, require_not_slower
from toolchain.profiling.saved import SavedProfile, SavedRow
from toolchain.stats.decision import Outcome


def repeats(count: int, deviation: float, *, seed: int = 0) -> list[SavedProfile]:
    """Return runs of one unchanged file whose medians differ by `deviation`."""
    medians = 100_000 * np.exp(np.random.default_rng(seed).normal(0, deviation, count))
    return [saved_run(number, median) for number, median in enumerate(medians)]


def interval(compared: RunComparison) -> tuple[float, float]:
    (row,) = compared.rows
    assert row.ratio is not None
    assert row.ratio.low is not None
    assert row.ratio.high is not None
    return row.ratio.low, row.ratio.high


def test_a_slower_file_is_shown_and_fails() -> None:
    compared = compare_runs(saved_run(0), saved_run(1, 110_000, sha256="b" * 64))
    low, high = interval(compared)
    assert 1.05 < low < 1.10 < high < 1.15
    assert compared.outcome is Outcome.FAIL
    with pytest.raises(GateFailed, match=r"a\.onnx on ort-cpu"):
        require_not_slower(compared)
    assert "not in it" in " ".join(compared.remarks)


def test_runs_that_differ_without_a_change_widen_the_interval() -> None:
    base, other = saved_run(0), saved_run(1, 110_000, sha256="b" * 64)
    quiet, noisy = (compare_runs(base, other, repeats(8, deviation)[1:]) for deviation in (0.001, 0.08))
    assert interval(quiet)[0] > 1.05
    assert interval(noisy)[0] < 1 < interval(noisy)[1]
    assert noisy.outcome is Outcome.PASS
    assert "unchanged files" in " ".join(noisy.remarks)
    assert noisy.rows[0].noise is not None
    assert noisy.rows[0].noise.freedom == 7


def test_of_unchanged_files_few_seem_slower_once_there_are_repeats() -> None:
    # Runs differ by 5 % and rounds by 1 %: by their rounds alone most pairs would seem to differ.
    alone, known = 0, 0
    for seed in range(40):
        base, other, *others = repeats(8, 0.05, seed=seed)
        changed = replace(other, rows=(replace(other.rows[0], sha256="b" * 64),))
        low, high = interval(compare_runs(base, changed))
        alone += not low <= 1 <= high
        low, high = interval(compare_runs(base, changed, others))
        known += not low <= 1 <= high
    assert alone > 20
    assert known <= 5


def test_unlike_machines_are_refused_unless_told() -> None:
    base, other = saved_run(0), saved_run(1, cpu="Cortex-A76", cores=8)
    with pytest.raises(EvidenceError, match="cpu Cortex-A76, not Cortex-A72; --anyway"):
        compare_runs(base, other)
    assert "cores 8, not 4" in compare_runs(base, other, anyway=True).remarks


@pytest.mark.parametrize("setting", ["threads", "batch"])
def test_other_settings_are_refused_even_then(setting: str) -> None:
    base, other = saved_run(0), saved_run(1)
    (row,), timings = other.rows, other.rows[0].timings
    assert timings is not None
    changes = {"batch": 2} if setting == "batch" else {"facts": replace(timings.facts, threads=2)}
    changed = replace(other, rows=(replace(row, timings=replace(timings, **changes)),))
    with pytest.raises(EvidenceError, match=f"{setting} 2 in .* and 1 in"):
        compare_runs(base, changed, anyway=True)


def test_only_files_of_other_names_are_compared_and_that_is_said() -> None:
    compared = compare_runs(saved_run(0), saved_run(1, artifact="b.onnx"))
    assert any("b.onnx is compared with a.onnx" in remark for remark in compared.remarks)
    two = replace(saved_run(1), rows=(*saved_run(1, artifact="b.onnx").rows, *saved_run(1, artifact="c.onnx").rows))
    with pytest.raises(EvidenceError, match="share no file"):
        compare_runs(saved_run(0), two)


def test_a_machine_that_is_always_busy_still_shows_a_file_that_is_twice_as_slow() -> None:
    repeats = [saved_run(number, 100_000 + 1000 * number, **BUSY) for number in range(4)]
    base, *others = repeats
    slow = saved_run(5, 200_000, sha256="b" * 64, **BUSY)
    assert compare_runs(base, slow, others).outcome is Outcome.FAIL
    assert compare_runs(base, saved_run(5, 140_000, **BUSY), others).outcome is Outcome.INCONCLUSIVE
    assert compare_runs(base, slow).outcome is Outcome.INCONCLUSIVE, "without repeats nothing is known of busy runs"
    calm = [saved_run(number, 100_000 + 1000 * number) for number in range(4)]
    assert compare_runs(calm[0], slow, calm[1:]).outcome is Outcome.INCONCLUSIVE
    assert compare_runs(base, saved_run(5, 130_000), others).outcome is Outcome.FAIL, "only the earlier run was busy"


def test_what_cannot_be_said_is_no_pass() -> None:
    busy = compare_runs(saved_run(0), saved_run(1, 110_000, **BUSY))
    assert busy.outcome is Outcome.INCONCLUSIVE
    assert "NOT QUIET: other processes kept 3.0 of 4 cores busy; latencies may be too long" in busy.remarks
    with pytest.raises(GateInconclusive, match=r"not known whether a\.onnx"):
        require_not_slower(busy)
    more = replace(saved_run(0), rows=(*saved_run(0).rows, *saved_run(0, artifact="b.onnx").rows))
    with pytest.raises(GateInconclusive, match=r"lacks b\.onnx on ort-cpu"):
        require_not_slower(compare_runs(more, saved_run(1)))


def test_instructions_are_compared_exactly_on_any_machine() -> None:
    facts = RuntimeFacts("arm64:cortex-a72", "onnxruntime", "1.31", "QEMU", 1, "emulated")

    def counted(number: int, count: int, cpu: str) -> SavedProfile:
        row = SavedRow("a.onnx", "a" * 64, 7, facts.target, instructions=Instructions("a" * 64, facts, (count,), 1))
        run = saved_run(number)
        return replace(run, rows=(row,), machine=run.machine | {"cpu": cpu})

    compared = compare_runs(counted(0, 1000, "one"), counted(1, 1030, "other"))
    assert (compared.rows[0].instructions_ratio, compared.outcome) == (1.03, Outcome.FAIL)
    assert compare_runs(counted(0, 1000, "one"), counted(1, 1010, "other")).outcome is Outcome.PASS


def test_the_machine_of_a_path_that_was_not_saved_is_named_by_its_time() -> None:
    assert compare_runs(saved_run(0), saved_run(1)).to_dict()["base"]["path"].startswith("2026-11-02T09:00")
    assert replace(saved_run(0), path=Path("x.json")).name == "x.json"
