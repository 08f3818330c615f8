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
    assert said[0].startswith("slower since c12: 1.10 [")
    assert "12 runs before" in said[0]
    assert said[1] == "the content of the file changed there"
    with pytest.raises(GateFailed, match=r"a\.onnx on ort-cpu: slower since c12"):
        history.require_not_slower()


def test_a_slowdown_that_was_undone_is_none_and_one_that_was_not_quite_still_is() -> None:
    undone = latency_history(runs((10, 100), (8, 120), (8, 100)))
    assert kinds(only(undone)) == [(10, "slower"), (18, "faster")]
    assert (undone.outcome, list(only(undone).sentences())) == (Outcome.PASS, ["not slower than before"])
    partly = latency_history(runs((10, 100), (8, 120), (8, 110)))
    (said, reason) = only(partly).sentences()
    assert said.startswith("slower since c10: 1.")
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
