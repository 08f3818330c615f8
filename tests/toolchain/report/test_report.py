"""The report: told as a table, as Markdown, and as JSON that comes back."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fixtures.reports import pressed_report, report_validator
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import to_json
from toolchain.core.quantities import size_text
from toolchain.formats.inspection import QUICK
from toolchain.report.press_report import packed_text, remarks, report_markdown, show_report
from toolchain.report.report import Report


def printed(report: Report, *, terminal: bool = False) -> str:
    text = io.StringIO()
    show_report(
        report, Console(file=text, force_terminal=terminal, width=200, color_system="standard" if terminal else None)
    )
    return text.getvalue()


def test_the_table_reads_like_the_sample_of_the_command_line() -> None:
    lines = [line.rstrip() for line in printed(pressed_report()).splitlines()]
    assert lines[0] == "checkpoint  cnn.pt  Net  151,935 parameters  7.3 MMAC  sha256 3fa13fa1…"
    assert lines[1] == (
        "input       1x28x28 upright, 0 to 1, mean 0.17, std 0.33, inverted  (found: 88.4 % right; next best 61.0 %)"
    )
    assert lines[3] == "calibration 512 images of emnist:balanced/train, seed 0, sha256 9b029b02…"
    assert lines[4] == "history     pruned 20 %"
    cells = [[cell for cell in line.split("   ") if cell] for line in lines[6:9]]
    assert [cell.strip() for cell in cells[0]] == [
        *("artifact", "size", "of float", "accuracy", "drop [bound]", "p50", "of float", "verdict")
    ]
    assert [cell.strip() for cell in cells[1]] == [
        *("float.onnx", "611 KB", "1.0x", "99.97 %", "-", "99.0 us", "1.00", "baseline")
    ]
    assert [cell.strip() for cell in cells[2]] == [
        *("int8.onnx", "163 KB", "3.7x", "99.84 %", "0.13 [0.19] pp", "67.2 us", "0.68", "PASS  winner")
    ]


@pytest.mark.parametrize(
    ("macs", "text"),
    [
        *((0, "0 MAC"), (950, "950 MAC"), (38_476, "38.5 kMAC"), (999_949, "999.9 kMAC")),
        *((999_990, "1.0 MMAC"), (8_041_000, "8.0 MMAC"), (4_100_000_000, "4.1 GMAC")),
    ],
)
def test_row42_multiply_accumulates_never_round_to_nothing(macs: int, text: str) -> None:
    report = pressed_report()
    assert f"  {text}  " in printed(replace(report, checkpoint=replace(report.checkpoint, macs=macs)))


@pytest.mark.parametrize(("size", "text"), [(12, "12 bytes"), (999, "999 bytes"), (1_000, "1.0 KB"), (12_345, "12 KB")])
def test_row42_sizes_never_round_to_nothing(size: int, text: str) -> None:
    assert size_text(size) == text


def test_row42_what_was_found_out_about_the_checkpoint_is_said_once() -> None:
    report = pressed_report()
    preprocess = "preprocess upright, 0 to 1 (found: 88.4 % right; next best 61.0 %)"
    weights = "weights taken from 'model'; --weights model_ema takes the others"
    rows = tuple(replace(row, notes=(*row.notes, preprocess, weights)) for row in report.rows)
    text = printed(replace(report, rows=rows, checkpoint=replace(report.checkpoint, history=(preprocess, weights))))
    assert text.count("found:") == 1
    assert text.count(weights) == 1
    assert "int8.onnx  weights | per channel" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_narrow_place_never_cuts_a_figure(terminal: bool) -> None:
    text = io.StringIO()
    show_report(pressed_report(3_000), Console(file=text, width=40, force_terminal=terminal, color_system=None))
    line = next(line for line in text.getvalue().splitlines() if "163 KB" in line)
    assert "15.93 [16.38] pp" in line
    assert "FAIL" in line
    assert "…" not in line


def test_what_is_slower_than_float_is_red_and_said() -> None:
    slow = printed(pressed_report(median=120_000), terminal=True)
    assert "\x1b[31m1.21" in slow
    assert "slower than float.onnx: int8.onnx (1.21)" in slow
    fast = printed(pressed_report(), terminal=True)
    assert "\x1b[31m" not in fast
    assert "slower" not in fast


def test_row7_each_file_is_compared_with_a_float_file_by_name_and_counted_ones_are_not_called_slow() -> None:
    report = pressed_report()
    base, candidate = report.rows
    counted = {"instructions": 1.0, "p50_ns": None, "p50_ratio": None, "p50_ratio_interval": None}
    floating = replace(base, name="float.tflite", format="tflite", baseline=False, instructions_ratio=0.7, **counted)
    quantized = replace(
        candidate, name="int8.tflite", format="tflite", instructions_ratio=0.74, own_ratio=1.05, **counted
    )
    slow = replace(candidate, instructions_ratio=1.2, own_ratio=1.2, **counted)
    text = printed(replace(report, rows=(replace(base, **counted), floating, slow, quantized)))
    assert "more instructions than float.onnx: int8.onnx (1.20)" in text
    assert "more instructions than float.tflite: int8.tflite (1.05)" in text
    assert "slower" not in text


def test_a_failed_verdict_says_why_below_the_table() -> None:
    text = printed(pressed_report(3_000))
    assert "FAIL" in text
    assert "'3' (" in text.split("suffered most: ")[1]


def test_the_report_comes_back_from_its_folder(tmp_path: Path) -> None:
    report = pressed_report()
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path) == report == Report.load(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["schema"] == "glyphpress/report/1"


def test_the_published_schema_is_that_of_the_program_and_refuses_what_it_does_not_know(glyphpress) -> None:
    published = Path(__file__).parents[3] / "docs" / "schemas" / "report.schema.json"
    printed_schema = glyphpress("schema", "report")
    assert printed_schema.code == 0, printed_schema.err
    assert json.loads(printed_schema.out) == json.loads(published.read_text(encoding="utf-8")), (
        "make it anew: python -m toolchain.cli.json_schemas docs/schemas"
    )
    validator = report_validator()
    validator.check_schema(validator.schema)
    values = to_json(pressed_report())
    validator.validate(values)
    older = {key: value for key, value in values.items() if key not in ("created", "failures")}
    validator.validate(older | {"machine": {}, "policy": {}, "calibration": None})
    for place, value in (
        (("rows", 1, "bytes"), "7"),
        (("policy",), {"drpo": {"max": "1pp"}}),
        (("machine", "isa"), "avx"),
    ):
        broken = json.loads(json.dumps(values))
        at(broken, place[:-1])[place[-1]] = value
        assert not validator.is_valid(broken), place
    for broken in (values | {"extra": 1}, {key: values[key] for key in values if key != "rows"}):
        assert not validator.is_valid(broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "no report there", id="missing"),
        pytest.param("{", "not a stored report", id="no json"),
        pytest.param("[]", "its schema is not glyphpress/report/1", id="another type"),
        pytest.param('{"schema": "glyphpress/report/9"}', r"format 9\).*reads up to 1: update", id="later version"),
        pytest.param('{"schema": "glyphpress/report/1"}', "'checkpoint' is missing", id="incomplete"),
        pytest.param("{}", "its schema is not glyphpress/report/1", id="other JSON"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(EvidenceError, match=f"^{tmp_path / 'report.json'}.* .*{message}"):
        Report.load(tmp_path)


def at(values: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rows", 1, "accuracy"), 3.0, "int8.onnx: accuracy cannot be 3.0"),
        (("rows", 1, "bytes"), -1, "int8.onnx: bytes cannot be -1"),
        (("rows", 1, "images"), 0, "int8.onnx: images cannot be 0"),
        (("rows", 1, "drop"), 7, "int8.onnx: drop cannot be 7"),
        (("rows", 1, "p50_ns"), -5.0, "int8.onnx: p50_ns cannot be -5.0"),
        (("rows", 1, "p50_ns"), 1e12, "int8.onnx: p99_ns cannot be"),
        (("rows", 1, "p50_ratio_interval"), [2.0, 1.0], "p50_ratio_interval cannot be"),
        (("rows", 1, "drop"), 0.5, "the row of int8.onnx is not as its comparison"),
        (("rows", 1, "verdicts", 0, "measured"), 7.0, "drop: .* cannot be measured"),
        (("rows", 1, "verdicts", 0, "measured"), 0.5, "drop: 0.5 cannot pass 0.003"),
        (("rows", 1, "verdicts", 0, "limit"), "drp", "no limit is called drp"),
        (("comparisons", 0, "drop"), 7.0, "images, lost, gained and drop of their comparison cannot be"),
        (("comparisons", 0, "lost"), -3, "of their comparison cannot be"),
        (("comparisons", 0, "candidate_accuracy"), 3.0, "accuracies of their comparison cannot be"),
        (("comparisons", 0, "upper"), -0.5, "interval, lower and upper of their comparison cannot be"),
        (("comparisons", 0, "candidate_bytes"), -7, "bytes of their comparison cannot be"),
        (("comparisons", 0, "per_class", 3, "images"), 7, "of their comparison cannot be"),
        (("dataset", "images"), -1, "greater than or equal to 0"),
        (("checkpoint", "macs"), -1, "greater than or equal to 0"),
        (("calibration", "images"), -5, "they name -5 images"),
    ],
    ids=str,
)
def test_a_report_that_was_edited_to_figures_that_cannot_be_is_refused(
    tmp_path: Path, place: tuple[str | int, ...], value: Any, message: str
) -> None:
    values = to_json(pressed_report())
    at(values, place[:-1])[place[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(values))
    with pytest.raises(EvidenceError, match=message) as refused:
        Report.load(tmp_path)
    assert "; press again" in str(refused.value)


def test_the_markdown_tells_everything_and_breaks_on_no_character() -> None:
    text = report_markdown(pressed_report())
    for section in ("## Artifacts", "## Verdicts", "## int8.onnx against float.onnx", "## Machine", "## Reproduce"):
        assert section in text
    table = [line for line in text.splitlines() if line.startswith("| int8.onnx | static-int8")]
    assert table[0].count(" | ") == 10
    assert "67.2 us | 67.2 us | 0.68 | PASS  winner" in table[0]
    assert "weights \\| per channel" in text
    assert "Some \\*CPU\\*" in text
    assert not any(counter in text for counter in ("work_s", "own_s", "clock_s")), "seconds that say nothing alone"
    assert "3 read as 8: +30" in text
    assert "$ glyphpress press cnn.pt --model 'cnn.py:Net(3, 4)'" in text
    assert "history: pruned 20 %" in text


def test_the_markdown_of_a_bare_report_has_no_empty_section() -> None:
    full = pressed_report()
    bare = replace(full, rows=full.rows[:1], comparisons=(), machine={}, tools={}, calibration=None)
    text = report_markdown(bare)
    assert "## Verdicts" not in text
    assert "## Machine" not in text
    assert "## Tools" not in text
    assert "calibration" not in text


def test_row54_a_report_claims_no_level_for_what_it_did_not_measure() -> None:
    report = pressed_report()
    rows = tuple(replace(row, bytes=QUICK + 1, packed=None) for row in report.rows)
    assert {packed_text(row) for row in rows} == {"-"}
    (line,) = (line for line in remarks(replace(report, rows=rows)) if line.startswith("packed"))
    assert line == "packed: not measured for files over 8 MB, which takes long; a policy with [packed] measures it"
    mixed = (replace(rows[0], packed=1000), *rows[1:])
    (line,) = (line for line in remarks(replace(report, rows=mixed)) if line.startswith("packed"))
    assert line.startswith("packed: by zstd, level 19; not measured for files over 8 MB")
