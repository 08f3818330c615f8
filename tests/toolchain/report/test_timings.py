"""Tables of timings: what was taken out of the percentiles is said, with its number, in every form."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.session import TimingPlan, Timings
from tests.fixtures.pages import check_page
from tests.fixtures.saved_runs import made_timings
from tests.fixtures.small_models import artifact, conv_net
from toolchain.evaluation.timings import LatencyRatio
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.profiling.per_operator import Breakdown
from toolchain.report.page.profile_page import profile_html
from toolchain.report.timings import measurements_csv, measurements_table, operators_text

SLICE_NS = 4_000_000


def preempted() -> Timings:
    """Return 2,000 samples of 100 us, 40 of which the system cut by four milliseconds."""
    timings = made_timings(100_000)
    samples = np.tile(timings.samples_ns, 5)
    hit = np.arange(0, 2000, 50)
    samples[hit] += SLICE_NS
    return replace(timings, samples_ns=samples, interrupted=tuple((int(index), SLICE_NS) for index in hit))


@pytest.fixture
def measured(tmp_path: Path) -> Measurements:
    file, timings = artifact(conv_net(tmp_path / "a.onnx")), preempted()
    row = MeasuredFile(file, "ort-cpu", timings.facts, timings)
    return Measurements((row,), TimingPlan(), 1, 20, 0, timings.taints, {"load_average": [9.0, 1.0, 1.0]})


def test_time_that_was_taken_out_is_said_with_the_tail_that_has_it(measured: Measurements) -> None:
    line = "40 of 2,000 samples, with it p99 4.1"
    assert line in measurements_table(measured).text()
    assert line in measurements_table(measured).markdown()
    assert line in profile_html(measured)
    (row,) = measured.to_dict()["rows"]
    assert (row["interrupted_samples"], round(row["interrupted_share"], 2)) == (40, 0.44)
    assert row["percentiles_ns"]["p99"] < 110_000 < SLICE_NS < row["raw_percentiles_ns"]["p99"]
    (figures,) = csv.DictReader(measurements_csv(measured).splitlines())
    assert figures["interrupted_samples"] == "40"
    assert float(figures["p99_ns"]) < 110_000 < SLICE_NS < float(figures["raw_p99_ns"])


def test_where_nothing_was_taken_out_no_line_says_so(measured: Measurements) -> None:
    (file,) = measured.files
    whole = replace(measured, files=(replace(file, timings=made_timings(100_000)),))
    assert "taken out" not in measurements_table(whole).text()


def test_a_reader_is_told_that_inputs_are_bound(measured: Measurements) -> None:
    assert "inputs and outputs bound" in measurements_table(measured).text()


def test_the_load_of_the_page_is_that_of_its_name(measured: Measurements) -> None:
    (file,) = measured.files
    state = {"load_average": [9.0, 1.0, 1.0], "end": {"load_average": [4.75, 1.0, 1.0]}}
    ended = replace(measured, files=(replace(file, timings=replace(preempted(), machine=state)),))
    page = profile_html(ended)
    assert "Load at the end" in page
    assert "4.75 (average of a minute" in page
    assert "9.00 (average" not in page


def test_other_targets_stand_in_the_headline_too(measured: Measurements) -> None:
    (file,) = measured.files
    ratios = (("ort-cpu", None), ("ort-cpu", 0.4), ("litert-cpu", None), ("litert-cpu", 0.25))
    files = tuple(
        replace(file, target=target, ratio=LatencyRatio(ratio, ratio, ratio, 20) if ratio else None)
        for target, ratio in ratios
    )
    assert (
        "On litert-cpu a.onnx takes 0.25 times as long as a.onnx."
        in check_page(profile_html(replace(measured, files=files))).text
    )


def test_each_file_of_a_busy_machine_is_named_once(measured: Measurements) -> None:
    file = measured.files[0].artifact
    busy = [Breakdown(file, f"t{n}", 1, 1, (), (f"others kept 1.{n} of 2 cores busy",)) for n in (7, 8)]
    assert "; glyphpress " in operators_text(busy)
    assert ", onnxruntime " in operators_text(busy)
    marks = [line for line in operators_text(busy).splitlines() if line.startswith("NOT QUIET")]
    assert marks == [
        "NOT QUIET: a.onnx on t7: others kept 1.7 of 2 cores busy; a.onnx on t8: others kept 1.8 of 2 cores busy; "
        "latencies may be too long"
    ]


def test_answers_stand_below_a_narrow_table_and_drop_no_figure(measured: Measurements) -> None:
    (file,) = measured.files
    refused = MeasuredFile(file.artifact, "litert-cpu", refused="it runs no .onnx; " + "export it as .tflite " * 3)
    table = measurements_table(replace(measured, files=(file, refused)))
    assert "answers" in table.text(width=240).splitlines()[0]
    head, *lines = table.text(width=100).splitlines()
    assert "answers" not in head
    assert "p99" in head
    assert len(head) <= 100
    assert any(
        line.startswith("answers: it runs no .onnx; ") and line.endswith("(a.onnx on litert-cpu)") for line in lines
    )
