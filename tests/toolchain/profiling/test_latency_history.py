"""Latency over many commits: since when a file is slower, what else changed then, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fixtures.saved_runs import BUSY, saved_run
from toolchain.core.errors import GateFailed, GateInconclusive, UsageProblem
from toolchain.profiling.latency_history import LatencyHistory, Series, latency_history
from toolchain.profiling.saved import SavedProfile
from toolchain.report.text_charts import history_chart
from toolchain.stats.decision import Outcome


def runs(*levels: tuple[int, float], first: int = 0, **changes: Any) -> list[SavedProfile]:
    """Return runs whose times differ by 1 % around levels, each (count, microseconds)."""
    times = [us for count, us in levels for _ in range(count)]
    noise = np.random.default_rng(1).normal(0, 0.01, len(times))
    return [
        saved_run(first + number, 1000 * us * float(np.exp(noise[number])), **changes)
        for number, us in enumerate(times)
    ]


def only(history: LatencyHistory) -> Series:
    (series,) = history.series
    return series


def kinds(series: Series) -> Sequence[tuple[int, str]]:
    return [(change.index, change.kind) for change in series.changes]


def test_a_file_is_slower_since_a_commit() -> None:
    history = latency_history([*runs((12, 100)), *runs((6, 110), first=12, sha256="b" * 64)])
    assert kinds(only(history)) == [(12, "slower")]
    said = list(only(history).sentences())
    assert said[0].startswith("slower since c12 (not yet c11): 1.10 [")
    assert "12 runs before" in said[0]
    assert said[1] == "the content of the file changed there"
    with pytest.raises(GateFailed, match=r"a\.onnx on ort-cpu: slower since c12"):
        history.require_not_slower()


UNDONE = "not slower than before; faster since c18 (not yet c17): 0.83 [0.82, 0.84] times as long, 8 runs before"


def test_a_slowdown_that_was_undone_is_none_and_one_that_was_not_quite_still_is() -> None:
    undone = latency_history(runs((10, 100), (8, 120), (8, 100)))
    assert kinds(only(undone)) == [(10, "slower"), (18, "faster")]
    assert (undone.outcome, list(only(undone).sentences())) == (Outcome.PASS, [UNDONE])
    partly = latency_history(runs((10, 100), (8, 120), (8, 110)))
    (said, reason) = only(partly).sentences()
    assert said.startswith("slower since c10 (not yet c9): 1.")
    assert reason.startswith("the same file in the same runtime")


def test_a_change_that_was_accepted_is_left_out() -> None:
    history = runs((10, 100), (10, 110))
    assert latency_history(history).outcome is Outcome.FAIL
    assert latency_history(history, since="c10").outcome is Outcome.PASS
    with pytest.raises(UsageProblem, match="no run is of commit zz"):
        latency_history(history, since="zz")


def test_too_few_runs_are_no_pass() -> None:
    history = latency_history(runs((7, 100)))
    assert list(only(history).sentences()) == ["7 runs cannot show a change; it takes 8"]
    with pytest.raises(GateInconclusive, match="7 runs cannot show a change"):
        history.require_not_slower()


def test_a_slowdown_of_busy_runs_alone_is_not_sure() -> None:
    busy = runs((6, 110), first=12, **BUSY)
    history = latency_history([*runs((12, 100)), *busy])
    assert history.outcome is Outcome.INCONCLUSIVE
    assert "NOT QUIET" in next(only(history).sentences())
    quiet = latency_history([*runs((12, 100)), *busy, *runs((6, 110), first=18)])
    assert quiet.outcome is Outcome.FAIL


def test_a_slowdown_of_half_is_sure_where_every_run_was_as_busy() -> None:
    history = latency_history([*runs((12, 100), **BUSY), *runs((6, 200), first=12, **BUSY)])
    with pytest.raises(GateFailed, match=r"slower since c12"):
        history.require_not_slower()
    assert latency_history([*runs((12, 100)), *runs((6, 200), first=12, **BUSY)]).outcome is Outcome.INCONCLUSIVE


def test_machines_and_settings_are_kept_apart_and_old_series_do_not_fail() -> None:
    old = runs((10, 100), (6, 120), cpu="Cortex-A53")
    history = latency_history([*old, *runs((10, 50), first=16)])
    assert [(series.machine["cpu"], series.current) for series in history.series] == [
        ("Cortex-A53", False),
        ("Cortex-A72", True),
    ]
    assert [series.outcome for series in history.series] == [Outcome.FAIL, Outcome.PASS]
    assert history.outcome is Outcome.PASS


def test_a_change_of_the_runtime_and_one_within_a_commit_are_told() -> None:
    newer = latency_history([*runs((10, 100)), *runs((6, 115), first=10, version="1.32")])
    assert "onnxruntime 1.32 there, not onnxruntime 1.31" in list(only(newer).sentences())
    one = [replace(run, commit="c9") for run in runs((10, 100), (6, 115))]
    assert "the run before is of commit c9 too, so no commit made the difference" in list(
        only(latency_history(one)).sentences()
    )


def test_a_drift_smaller_than_two_percent_is_no_slowdown() -> None:
    small = latency_history(runs((30, 100), (30, 101.5)))
    assert [kind for _, kind in kinds(only(small))] == ["small"]
    assert small.outcome is Outcome.PASS


def planted(noise: float, *, at: int, seed: int, runs: int = 30) -> list[SavedProfile]:
    """Return runs of which those from `at` on take a tenth longer."""
    random = np.random.default_rng(seed)
    times = [
        150_000 * (1.1 if number >= at else 1.0) * float(np.exp(random.normal(0, noise))) for number in range(runs)
    ]
    return [saved_run(number, ns, seed=0) for number, ns in enumerate(times)]


@pytest.mark.parametrize("noise", [0.01, 0.02], ids=["1 %", "2 %"])
@pytest.mark.parametrize("at", [3, 15, 25, 26, 27])
def test_no_innocent_commit_is_named(noise: float, at: int) -> None:
    told = exact = 0
    for seed in range(6):
        series = only(latency_history(planted(noise, at=at, seed=seed)))
        for change in series.changes:
            told += 1
            assert change.earliest <= at <= change.latest
            assert change.latest - change.earliest <= 5
            exact += change.earliest == change.latest
            said = next(series.sentences())
            assert f"not yet c{change.earliest - 1}" in said
            assert f"c{at}" in said or change.latest - change.earliest > 1
    assert told >= (1 if at in (3, 27) else 5)
    assert noise > 0.01 or exact == told


def test_a_run_at_the_old_level_is_not_the_first_slow_one() -> None:
    # Three slow runs are the fewest that are found, and a split keeps four values on its side.
    series = only(latency_history(runs((27, 150), (3, 166))))
    assert [(change.earliest, change.index, change.latest) for change in series.changes] == [(27, 27, 27)]
    assert next(series.sentences()).startswith("slower since c27 (not yet c26): 1.1")


def test_where_it_may_have_come_with_several_commits_all_are_named_and_what_changed_there() -> None:
    made = runs((20, 100), (1, 105), (9, 110))
    made = [
        replace(run, rows=(replace(run.rows[0], sha256="b" * 64 if number >= 21 else "a" * 64),))
        for number, run in enumerate(made)
    ]
    series = only(latency_history(made))
    (said, reason) = series.sentences()
    assert said.startswith("slower since a run from c20 to c21, likeliest c2")
    assert "(not yet c19): 1.1" in said
    assert reason == "the content of the file changed at c21"
    (change,) = series.to_dict()["changes"]
    assert [change[f"{name}_commit"] for name in ("earliest", "latest")] == ["c20", "c21"]
    assert change["commit_before"] == "c19"
    assert "slower 1.10?" in history_chart(series)


def test_a_faster_file_is_said_to_be_faster() -> None:
    history = latency_history(runs((12, 100), (8, 80)))
    assert history.outcome is Outcome.PASS
    assert next(only(history).sentences()).startswith("faster since c12 (not yet c11): 0.79 [")
