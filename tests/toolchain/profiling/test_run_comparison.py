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
    assert noisy.outcome is Outcome.INCONCLUSIVE
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


@pytest.mark.parametrize("content", ["the same file", "a new file"])
@pytest.mark.parametrize(("slower", "outcome"), [(1.0, Outcome.PASS), (1.05, Outcome.FAIL)])
def test_a_slowdown_between_two_folders_is_no_noise(
    tmp_path: Path, content: str, slower: float, outcome: Outcome
) -> None:
    for seed in range(10):
        folders = [repeats(4, 0.002, seed=seed), repeats(4, 0.002, seed=seed + 100)]
        runs = [
            replace(saved_run(number, slower**after * typical, sha256=sha256), path=tmp_path / str(after) / run.name)
            for after, folder in enumerate(folders)
            for number, run in enumerate(folder)
            for typical in [float(np.median(run.rows[0].timings.samples_ns))]  # type: ignore[union-attr]
            for sha256 in ["ab"[after and content == "a new file"] * 64]
        ]
        compared = compare_runs(runs[3], runs[7], [*runs[:3], *runs[4:7]])
        assert compared.outcome is outcome
        (row,) = compared.rows
        assert (row.runs_before, row.runs_after) == (4, 4)
        assert "of 4 runs before and 4 after" in " ".join(compared.remarks)


def test_a_wide_interval_is_not_known_and_no_pass(tmp_path: Path) -> None:
    others = [replace(run, path=tmp_path / run.name) for run in repeats(4, 0.05, seed=1)]
    base, run = (
        replace(saved_run(9 + k, ns, sha256="cd"[k] * 64), path=tmp_path / str(k)) for k, ns in ((0, 1e5), (1, 1.2e5))
    )
    compared = compare_runs(base, run, others)
    low, high = interval(compared)
    assert low < 1.02 < high
    with pytest.raises(GateInconclusive, match="save more runs"):
        require_not_slower(compared)


def test_in_one_folder_an_unchanged_file_is_compared_by_its_two_runs(tmp_path: Path) -> None:
    first, *others, last = (replace(run, path=tmp_path / run.name) for run in repeats(6, 0.005))
    (row,) = compare_runs(first, last, others).rows
    assert (row.runs_before, row.runs_after) == (1, 1)


def test_a_busy_repeat_is_not_averaged(tmp_path: Path) -> None:
    before = [replace(run, path=tmp_path / run.name) for run in [*repeats(4, 0.005), saved_run(7, 300_000, **BUSY)]]
    after = replace(saved_run(9, sha256="b" * 64), path=tmp_path / "after.json")
    (row,) = compare_runs(before[0], after, before[1:]).rows
    assert (row.runs_before, row.runs_after) == (4, 1)
    assert row.ratio is not None
    assert 0.9 < row.ratio.ratio < 1.1
