"""What a user can do next after a FAIL or INCONCLUSIVE: command lines that the program itself takes."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.load import load
from targets.metadata import load_artifact, save_sidecar
from targets.preprocess import Preprocess
from tests.fixtures.small_readers import linear_reader, ridge
from toolchain.gate.limit import Verdict
from toolchain.report.advice import next_steps, open_limits, pressed_again, pressed_next
from toolchain.report.report import CheckpointFacts, DatasetFacts, Report, Row
from toolchain.stats.decision import Outcome


def verdict(limit: str, outcome: Outcome = Outcome.FAIL, action: str = "fail") -> Verdict:
    return Verdict(limit, outcome, action, 1.0, 0.5, None, "because", artifact="int8.onnx")  # type: ignore[arg-type]


def commands(lines: list[str]) -> list[list[str]]:
    return [shlex.split(line.split(": ", 1)[1]) for line in lines if ": glyphpress " in line and ";" not in line]


@pytest.mark.parametrize(
    ("limit", "options"),
    [
        pytest.param("drop", ["--fallback", "--calibration"], id="row36-reads worse"),
        pytest.param("classes", ["--fallback", "--calibration"], id="row36-a class reads worse"),
        pytest.param("size", ["--scheme"], id="row36-too large"),
        pytest.param("p95", ["--per-op"], id="row36-too slow"),
    ],
)
def test_each_kind_of_limit_has_commands_that_help(limit: str, options: list[str]) -> None:
    source, candidate = Path("out/x.float.onnx"), Path("out/x.int8.onnx")
    advice = next_steps([verdict(limit)], source=source, candidate=candidate, data=["--data", "builtin:digits"])
    arguments = [word for command in commands(advice) for word in command]
    assert all(option in arguments for option in options)
    assert f"[{limit}]" in advice[-1]
    assert "--policy gate.toml" in advice[-1]


def test_a_quiet_machine_decides_times_alone_and_images_the_rest() -> None:
    open_ = [verdict("drop", Outcome.INCONCLUSIVE), verdict("p95", Outcome.INCONCLUSIVE), verdict("size")]
    advice = next_steps(open_, source=Path("a.onnx"), candidate=Path("b.onnx"), data=[])
    assert "more images would decide [drop]" in advice
    assert "a quiet machine, or more time to measure, would decide [p95]" in advice


def test_row44_a_file_that_takes_its_images_otherwise_is_not_told_to_be_quantized_again() -> None:
    advice = next_steps([verdict("preprocess")], source=Path("a.onnx"), candidate=Path("b.onnx"), data=["--data", "x"])
    assert not commands(advice)
    assert "as the baseline does" in advice[0]
    assert "wider max" not in advice[-1]


def test_row36_what_passed_or_only_warns_needs_nothing() -> None:
    passed = [verdict("drop", Outcome.PASS), verdict("size", action="warn")]
    assert open_limits(passed) == {}
    assert next_steps(passed, source=Path("a.onnx"), candidate=Path("b.onnx"), data=["--data", "x"]) == []


def test_row36_a_press_is_shown_again_with_other_recipes_and_a_folder_of_its_own() -> None:
    run = ("glyphpress", "press", "my model.pt", "--data", "d", "--recipe", "static-int8", "--out=out", "--force")
    (line,) = pressed_again(run, Path("out"), [verdict("drop")])
    (again,) = commands([line])
    assert again[:5] == ["glyphpress", "press", "my model.pt", "--data", "d"]
    assert again[5:] == ["--recipe", "weight-int8", "--recipe", "qat-int8", "--out", "out-next"]


def test_a_file_whose_name_begins_with_a_dash_is_no_option() -> None:
    source, candidate = Path("-x.float.onnx"), Path("-x.int8.onnx")
    advice = next_steps([verdict("drop"), verdict("p95")], source=source, candidate=candidate, data=["--data", "d"])
    explain = next(command for command in commands(advice) if command[1] == "explain")
    assert explain[2:4] == ["./-x.float.onnx", "./-x.int8.onnx"]
    assert all(not command[2].startswith("-") for command in commands(advice))
    run = ("glyphpress", "press", "--data", "d", "--out", "out", "--", "-x.pt")
    (again,) = commands(pressed_again(run, Path("out"), [verdict("size")]))
    assert again[-2:] == ["--", "-x.pt"]
    assert again.index("--recipe") < again.index("--")


def test_a_candidate_that_need_not_be_there_is_not_named_in_a_command() -> None:
    advice = next_steps([verdict("p95")], source=Path(), candidate=None, data=[])
    assert not commands(advice)


@pytest.mark.parametrize(("images", "offered"), [(599, False), (18_800, True), (None, True)])
def test_a_fallback_is_offered_where_the_images_can_show_that_it_helped(images: int | None, offered: bool) -> None:
    source, candidate = Path("x.float.onnx"), Path("x.int8.onnx")
    steps = next_steps([verdict("drop")], source=source, candidate=candidate, data=["--data", "d"], images=images)
    assert any("--fallback" in command for command in commands(steps)) is offered
    assert any("--calibration" in command for command in commands(steps))


def test_row36_a_gate_that_fails_ends_in_steps_that_run_and_says_no_reason_twice(glyphpress, tmp_path: Path) -> None:
    base = linear_reader(tmp_path / "digits.float.onnx")
    broken = linear_reader(tmp_path / "broken.onnx", dead=(4, 7))
    options = ["--baseline", base, "--candidate", broken, "--data", "builtin:digits"]
    floating = json.loads(glyphpress("gate", *options, "--json").out)["next_steps"]
    assert [step.partition(" ")[0] for step in floating] == ["allow"], "a float file is not quantized again"
    save_sidecar(replace(load_artifact(broken), recipe="static-int8"))
    failed = glyphpress("gate", *options)
    assert failed.code == 1
    last = failed.err.splitlines()[-1]
    assert last.startswith("glyphpress: FAIL: broken.onnx (drop")
    assert len(last) < 120
    steps = [line for line in failed.out.splitlines() if ": glyphpress " in line and ";" not in line]
    squared, _ = commands(steps)
    done = glyphpress(*squared[1:])
    assert done.code == 0, done.err
    assert (tmp_path / "digits.mse.onnx").is_file()
    shown = glyphpress("gate", *options, "--json")
    assert shown.out.count("\n") == 1
    advice = [
        line.removeprefix("next").strip() for line in failed.out.splitlines() if line.startswith(("next", "     "))
    ]
    listed = json.loads(shown.out)["next_steps"]
    assert listed[0].startswith("choose ranges by least squared error: glyphpress quantize ")
    assert listed == advice[-len(listed) :]
    save_sidecar(replace(load_artifact(broken), parent_sha256="ab" * 32))
    pruned = next_steps([verdict("drop")], source=base, candidate=broken, data=["--data", "d"])
    assert not commands(pruned), "what was made of another file is not explained by this one"


def test_a_file_near_chance_is_called_broken_and_no_wider_limit_is_offered(glyphpress, tmp_path: Path) -> None:
    base = linear_reader(tmp_path / "digits.float.onnx")
    weights, bias = ridge(load("builtin:digits", "train"))
    broken = linear_reader(tmp_path / "broken.onnx", linear=(np.roll(weights, 1, axis=1), np.roll(bias, 1)))
    save_sidecar(replace(load_artifact(broken), recipe="static-int8"))
    options = ["--baseline", base, "--data", "builtin:digits", "--json"]
    failed = glyphpress("gate", *options, "--candidate", broken)
    assert failed.code == 1
    steps = json.loads(failed.out)["next_steps"]
    assert "no wider limit helps" in steps[0]
    assert not any("allow more" in step or "quantize" in step for step in steps)
    assert [command[1] for command in commands(steps)] == ["inspect", "adopt", "explain"]
    inspected, adopted = (glyphpress(*command[1:]) for command in commands(steps)[:2])
    assert inspected.code == 0
    assert "does not read these images" in adopted.err, "the order of its columns is no matter of its input"
    saved = tmp_path / "broken.npz"
    assert glyphpress("evaluate", broken, "--data", "builtin:digits", "-o", saved).code == 0
    (step,) = json.loads(glyphpress("gate", *options, "--candidate", saved).out)["next_steps"]
    assert "no wider limit helps" in step


def test_row36_json_of_a_gate_that_passed_and_of_a_press_lists_steps_too(glyphpress, tmp_path: Path) -> None:
    base = linear_reader(tmp_path / "digits.float.onnx")
    options = ("--data", "builtin:digits", "--json")
    passed = glyphpress("gate", "--baseline", base, "--candidate", base, "--policy", "smoke", *options)
    assert json.loads(passed.out)["next_steps"] == []
    made = ("--recipe", "float16", "--format", "onnx", "--orientation", "upright", "--scale", "0-1")
    press = (*made, "--seconds", "1ms", "--max-size", "1KB", "--out", tmp_path / "o")
    failed = glyphpress("press", base, *options, *press)
    assert failed.code == 1, failed.err
    assert any(step.startswith("try other recipes: glyphpress press ") for step in json.loads(failed.out)["next_steps"])


def test_hints_about_quantizing_are_for_a_quantized_file_and_never_for_a_float_one() -> None:
    undecided = (verdict("drop", Outcome.INCONCLUSIVE),)
    first = Row("d.float.onnx", "onnx", "float", "00", 9, "ort-cpu", 9, 0.9, baseline=True)
    other = replace(first, name="d.float.tflite", format="tflite", baseline=False, verdicts=undecided)
    small = replace(other, name="d.static-int8.tflite", recipe="static-int8")
    press = ("glyphpress", "press", "d.pt", "--data", "x", "--out", "o")

    def said(*rows: Row) -> list[str]:
        facts = CheckpointFacts("d", "m", "00"), DatasetFacts("x", 9, ("0", "1"), "00"), Preprocess()
        return pressed_next(Report(*facts, rows, command=press), Path("o"), ["--data", "x"])

    explain = next(command for command in commands(said(first, other, small)) if command[1] == "explain")
    assert explain[2:4] == ["o/d.float.tflite", "o/d.static-int8.tflite"]
    alone = said(first, other)
    assert alone[0] == "more images would decide [drop]"
    assert not commands(alone)
