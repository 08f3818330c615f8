"""Stored timings: what `profile -o` writes is read again, alone or as runs over time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets.session import RuntimeFacts, Timings
from tests.fixtures.small_models import artifact, conv_net
from toolchain.commands.profile import ProfileRequest, profile_files
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.timings import LatencyRatio, StoredRow, StoredRun, load_timings, save_timings
from toolchain.profiling.history import history, notes
from toolchain.report.timings import measurements_table

SHORT = ("--seconds", "1ms", "--runs", "40")
Program = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [conv_net(tmp_path / f"{name}.onnx", channels=n) for name, n in (("a", 4), ("b", 16))]


def timings(median: int = 1000, *, seed: int = 0, **changes: Any) -> Timings:
    """Twenty rounds of fifty samples around a median."""
    samples = (median * np.exp(np.random.default_rng(seed).normal(0, 0.05, 1000))).astype(np.int64)
    facts = RuntimeFacts("ort-cpu", "onnxruntime", "1", "cpu", 1)
    made = Timings("0" * 64, facts, samples, 1, 1, 20, 5, 5, {"cpu": "A", "cores": 2}, tuple(range(0, 1000, 50)))
    return replace(made, **changes)


def stored(name: str, *rows: Timings) -> StoredRun:
    return StoredRun(name, tuple(StoredRow(f"{k}.onnx", row) for k, row in enumerate(rows)))


def test_row38_stored_samples_are_shown_again_and_compared_over_time(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "1.npz", tmp_path / "2.npz"
    for path in (first, second):
        assert glyphpress("profile", *files, *SHORT, "-o", path).code == 0
    alone = glyphpress("report", first)
    assert alone.code == 0, alone.err
    assert "run" not in alone.out.splitlines()[0]
    assert [line.split()[0] for line in alone.out.splitlines()[:3]] == ["artifact", "a.onnx", "b.onnx"]
    said = json.loads(glyphpress("report", first, second, "--json").out)
    assert said["schema"] == "glyphpress/report-timings/1"
    runs = [(line["run"], line["artifact"], line["ratio"] is None) for line in said["lines"]]
    assert runs == [
        (str(first), "a.onnx", True),
        (str(second), "a.onnx", False),
        (str(first), "b.onnx", True),
        (str(second), "b.onnx", False),
    ]
    assert glyphpress("report", first, second, "--markdown").out.startswith("| artifact | target | run |")
    refused = glyphpress("report", first, tmp_path)
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_row38_what_was_written_comes_back_to_the_nanosecond(tmp_path: Path) -> None:
    done = profile_files(ProfileRequest((artifact(conv_net(tmp_path / "a.onnx")),), targets=("ort-cpu", "null")))
    done.save_samples(tmp_path / "t.npz")
    back = load_timings(tmp_path / "t.npz")
    assert len(back.rows) == len(done.files) == 2
    for row, cell in zip(back.rows, done.files, strict=True):
        assert cell.timings is not None
        assert row.timings.to_dict() == json.loads(json.dumps(cell.timings.to_dict()))


def test_row38_a_ratio_of_two_runs_holds_the_true_one_and_is_not_of_pairs() -> None:
    slower = LatencyRatio.apart(timings(1200, seed=1), timings(1000))
    assert slower is not None
    assert slower.low is not None
    assert slower.high is not None
    assert slower.low < 1.2 < slower.high
    assert slower.low > 1.1
    fewer = timings(1000, seed=2, blocks=tuple(range(0, 1000, 100)))
    other = LatencyRatio.apart(fewer, timings(1000))
    assert other is not None
    assert (other.rounds, other.low is not None) == (10, True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (timings(facts=RuntimeFacts("ort-cpu", "onnxruntime", "1", "cpu", 2)), "threads 2 in b and 1 in a"),
        (timings(batch=8), "batch 8 in b and 1 in a"),
        (timings(facts=RuntimeFacts("openvino-cpu", "openvino", "1", "cpu", 1)), "times no file of a"),
    ],
    ids=["row38-threads", "row38-batch", "row38-target"],
)
def test_runs_that_cannot_be_compared_are_refused(changed: Timings, said: str) -> None:
    with pytest.raises(EvidenceError, match=said):
        history([stored("a", timings()), stored("b", changed)])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (timings(machine={"cpu": "B", "cores": 2}), "another machine (B, not A)"),
        (timings(artifact_sha256="1" * 64), "0.onnx has other content"),
        (timings(facts=RuntimeFacts("ort-cpu", "onnxruntime", "2", "cpu", 1)), "another runtime (onnxruntime 2, not"),
    ],
    ids=["row38-machine", "row38-content", "row38-runtime"],
)
def test_what_makes_runs_unlike_is_noted(changed: Timings, said: str) -> None:
    assert list(notes([stored("a", timings()), stored("b", timings(seed=1))])) == []
    (line,) = notes([stored("a", timings()), stored("b", changed)])
    assert line.startswith(f"b against a: {said}")


def test_row38_what_is_no_stored_timing_is_refused_in_a_line(glyphpress: Program, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    meta = {"rows": [{"artifact": "a.onnx", "sha256": "0" * 64}]}
    save_timings(path, meta, [timings()])
    np.savez(tmp_path / "foreign.npz", logits=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-100])
    for name in ("x.npz", "foreign.npz", "cut.npz", "gone.npz"):
        done = glyphpress("report", tmp_path / name)
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert "glyphpress profile ARTIFACT -o FILE.npz" in done.err


def test_row38_markdown_and_csv_are_written_and_never_over_a_file_unasked(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    words = ("profile", *files, *SHORT, "--markdown", tmp_path / "t.md", "--csv", tmp_path / "t.csv")
    done = glyphpress(*words, "--json")
    assert done.code == 0, done.err
    assert (tmp_path / "t.md").read_text().startswith("| artifact | target | size |")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    said = json.loads(done.out)["rows"]
    assert [row["artifact"] for row in rows] == ["a.onnx", "b.onnx"]
    assert [float(row["p50_ns"]) for row in rows] == [row["percentiles_ns"]["p50"] for row in said]
    assert (rows[0]["of_first"], rows[1]["threads"]) == ("", "1")
    assert glyphpress(*words).code == 2
    assert glyphpress("profile", files[0], *SHORT, "--csv", files[0], "--force").code == 2
    assert glyphpress("profile", files[0], "--csv", tmp_path / "n", "--markdown", tmp_path / "n").code == 2
    assert glyphpress("profile", files[0], "--per-op", "--csv", tmp_path / "n").code == 2


def test_row38_the_table_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    both = tuple(artifact(conv_net(tmp_path / f"{name}.onnx", channels=n)) for name, n in (("a", 4), ("b", 16)))
    done = profile_files(ProfileRequest(both, memory=True))
    table = measurements_table(done)
    text, wide = table.text(width=80), table.text()
    table, hidden = text.splitlines()[:3], text.splitlines()[3]
    assert max(map(len, table)) <= 80 < len(wide.splitlines()[0])
    assert hidden.startswith("not shown at this width: ")
    for heading in hidden.removeprefix("not shown at this width: ").split(";")[0].split(", "):
        assert heading in wide.splitlines()[0]
    assert "p50" in table[0]
    assert "of first" in table[0]
    assert "not shown" not in wide


def test_row38_a_simulated_place_has_no_latencies_here_either(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    stored = tmp_path / "t.npz"
    assert glyphpress("profile", *files, *SHORT, "--target", "null", "-o", stored).code == 0
    told = glyphpress("report", stored)
    assert "null is simulated" in told.out
    assert " us" not in told.out
    lines = json.loads(glyphpress("report", stored, "--json").out)["lines"]
    assert {line["percentiles_ns"]["p50"] for line in lines} == {None}


def test_row38_what_was_emulated_or_refused_is_named_without_times(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    import numpy as np

    assert glyphpress("profile", *files, *SHORT, "-o", tmp_path / "t.npz").code == 0
    with np.load(tmp_path / "t.npz") as stored:
        arrays = dict(stored)
    meta = json.loads(str(arrays["meta"]))
    emulated = meta["rows"][0] | {"target": "arm64:cortex-a72", "instructions": {"counts": [1000]}}
    refused = meta["rows"][0] | {"target": "ssh://kitchen", "refused": "not here", "instructions": None}
    meta["rows"] += [emulated, refused]
    np.savez(tmp_path / "more.npz", **arrays | {"meta": np.array(json.dumps(meta))})
    told = glyphpress("report", tmp_path / "more.npz")
    assert told.code == 0, told.err
    name = files[0].name
    assert f"{name} on arm64:cortex-a72 is emulated, so it has instruction counts and no times" in told.out
    assert f"{name} on ssh://kitchen was not timed" in told.out
    notes = json.loads(glyphpress("report", tmp_path / "more.npz", "--json").out)["notes"]
    assert any("is emulated" in line for line in notes)
    meta["rows"] = [emulated]
    np.savez(tmp_path / "none.npz", meta=np.array(json.dumps(meta)))
    alone = glyphpress("report", tmp_path / "none.npz")
    assert alone.code == 3
    assert f"nothing in it was timed: {name} on arm64:cortex-a72 is emulated" in alone.err


@pytest.mark.parametrize("name", ["=1+1.onnx", "+1.onnx", "@sum.onnx"])
def test_row30_no_spreadsheet_takes_a_name_for_a_formula(
    name: str, glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(files[0].read_bytes())
    done = glyphpress("profile", tmp_path / name, *SHORT, "--csv", tmp_path / "t.csv")
    assert done.code == 0, done.err
    (row,) = csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text()))
    assert row["artifact"] == f"'{name}"


def test_row38_a_profile_of_millions_of_images_says_so_before(glyphpress: Program, files: list[Path]) -> None:
    long = glyphpress("profile", files[0], "--batch", "1001", "--runs", "1000", "--target", "null", "--seconds", "1ms")
    assert "each file runs 1,000 times or more on 1,001 images, 1,001,000 in all" in long.err
    short = glyphpress("profile", files[0], "--batch", "100", "--runs", "50", "--target", "null", "--seconds", "1ms")
    assert "in all" not in short.err
