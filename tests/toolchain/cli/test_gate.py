"""`evaluate`, `compare`, `gate`, `report` and `help` as a user runs them, on real files."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Finished
from tests.fixtures.reports import pressed_report
from tests.fixtures.small_readers import digits, linear_reader, pair, written
from toolchain.gate.candidate import evaluate_file

Run = Callable[..., Finished]
DATA = ("--data", "builtin:digits")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a float reader, an honest rounding of it, and one whose digits 4 and 7 were broken."""
    linear_reader(tmp_path / "float.onnx")
    linear_reader(tmp_path / "int8.onnx", step=1e-4)
    linear_reader(tmp_path / "broken.onnx", dead=(4, 7))
    return tmp_path


def one_line(text: str) -> str:
    """The error of a command: the only line on stderr that is no progress."""
    lines = [line for line in text.splitlines() if not line.startswith(("evaluate ", "timing "))]
    assert len(lines) == 1, text
    assert lines[0].startswith("glyphpress: ")
    return lines[0]


def test_evaluate_prints_what_the_file_reads_and_saves_it(glyphpress: Run, files: Path) -> None:
    found = glyphpress("evaluate", files / "float.onnx", *DATA, "-o", files / "float.npz")
    assert found.code == 0
    for words in ("accuracy", "95 % interval", "macro", "micro", "precision", "F1", "confused", "ort-cpu"):
        assert words in found.out
    assert (files / "float.npz").is_file()
    again = glyphpress("evaluate", files / "float.onnx", *DATA, "-o", files / "float.npz")
    assert (again.code, again.out) == (2, "")
    assert "--force" in one_line(again.err)
    assert glyphpress("evaluate", files / "float.onnx", *DATA, "-o", files / "float.npz", "--force").code == 0


def test_evaluate_saves_under_no_name_that_reads_as_another_kind_of_file(glyphpress: Run, files: Path) -> None:
    done = glyphpress("evaluate", files / "float.onnx", *DATA, "-o", files / "answers.onnx")
    assert (done.code, done.out) == (2, "")
    assert "answers are saved as .npz, the sheet of --errors as .png; name it so" in one_line(done.err)
    assert not (files / "answers.onnx").exists()


def test_evaluate_shows_the_surest_mistakes_and_draws_them(glyphpress: Run, files: Path) -> None:
    words = ("evaluate", files / "broken.onnx", *DATA, "--errors", "7", "-o", files / "sheet.png")
    done = glyphpress(*words, "-o", files / "answers.npz", "--confusion", files / "matrix.svg")
    assert done.code == 0, done.err
    assert (files / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "broken.onnx on builtin:digits/test" in (files / "matrix.svg").read_text()
    assert len(done.out.split("truth had")[1].strip().splitlines()) == 7
    said = json.loads(glyphpress("evaluate", files / "broken.onnx", *DATA, "--errors", "7", "--json").out)
    confidences = [mistake["confidence"] for mistake in said["errors"]]
    assert confidences == sorted(confidences, reverse=True)
    for mistake in said["errors"]:
        assert digits().classes[digits().labels[mistake["index"]]] == mistake["truth"] != mistake["read"]
    assert 0 < said["metrics"]["kappa"] < said["metrics"]["accuracy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "sheet.png"), "a sheet needs the number of wrong answers; add --errors 40"),
        (("-o", "a.npz", "-o", "b.npz"), "-o names two .npz files; give one"),
        (("--confusion", "matrix.png"), "matrix.png should end in .svg; name it so"),
        (("--errors", "0"), "--errors"),
    ],
)
def test_evaluate_refuses_files_that_cannot_be_meant(
    glyphpress: Run, files: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    done = glyphpress("evaluate", "float.onnx", *DATA, *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert sorted(files.iterdir()) == before


def test_evaluate_json_is_one_object(glyphpress: Run, files: Path) -> None:
    found = json.loads(glyphpress("evaluate", files / "float.onnx", *DATA, "--json", "--threads", "1").out)
    assert found["schema"] == "glyphpress/evaluate/1"
    assert found["facts"]["threads"] == 1
    assert found["metrics"]["accuracy"] == found["metrics"]["right"] / found["metrics"]["images"] > 0.8
    assert np.array(found["metrics"]["confusion"]).sum() == found["metrics"]["images"]


def test_evaluate_shows_what_each_class_is_misread_as(glyphpress: Run, files: Path) -> None:
    ran = glyphpress("evaluate", files / "broken.onnx", *DATA, "--sort", "accuracy", "--csv", files / "classes.csv")
    table = [line.split() for line in ran.out[ran.out.index("\nclass ") :].splitlines()[2:12]]
    measured = json.loads(glyphpress("evaluate", files / "broken.onnx", *DATA, "--json").out)["metrics"]
    assert {row[0] for row in table[:2]} == {"4", "7"}
    same = json.loads(glyphpress("evaluate", files / "broken.onnx", *DATA, "--sort", "accuracy", "--json").out)
    assert [row["label"] for row in same["metrics"]["per_class"]] == [row[0] for row in table]
    with (files / "classes.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [row["class"] for row in written] == [row[0] for row in table]
    for row, line in zip(table, written, strict=True):
        matrix = measured["confusion"][int(row[0])]
        assert row[1:3] == [line["images"], line["right"]] == [str(sum(matrix)), str(matrix[int(row[0])])]
        wrong = {str(answer): count for answer, count in enumerate(matrix) if count and answer != int(row[0])}
        assert measured["per_class"][int(row[0])]["misread"] == wrong
        assert dict(re.findall(r"(\d) \((\d+)\)", line["misread as"])) == {a: str(n) for a, n in wrong.items()}
    for name in ("classes.csv", "classes.txt"):
        assert glyphpress("evaluate", files / "broken.onnx", *DATA, "--csv", files / name).code == 2


def test_compare_takes_artifacts_and_saved_evaluations_alike(glyphpress: Run, files: Path) -> None:
    glyphpress("evaluate", files / "float.onnx", *DATA, "-o", files / "float.npz")
    direct = glyphpress("compare", files / "float.onnx", files / "broken.onnx", *DATA, "--json")
    stored = glyphpress("compare", files / "float.npz", files / "broken.onnx", *DATA, "--json")
    assert json.loads(direct.out) == json.loads(stored.out)
    assert json.loads(direct.out)["schema"] == "glyphpress/compare/1"
    shown = glyphpress("compare", files / "float.npz", files / "broken.onnx", *DATA)
    assert shown.code == 0
    for words in ("lost", "gained", "answers changed", "95 % interval", "worst", "read as"):
        assert words in shown.out


def test_the_gate_passes_an_honest_candidate(glyphpress: Run, files: Path) -> None:
    words = ("--baseline", files / "float.onnx", "--candidate", files / "int8.onnx", *DATA, "--policy", "smoke")
    found = glyphpress("gate", *words, "--max-size", "250KB", "--max-p95", "1s", "--threads", "1")
    assert found.code == 0, found.err
    assert re.findall(r"^(PASS|FAIL|INCONCLUSIVE) +(\w+):", found.out, re.MULTILINE) == [
        ("PASS", limit) for limit in ("drop", "flips", "size", "p95")
    ]


def test_the_gate_rejects_a_planted_regression_and_names_the_classes(glyphpress: Run, files: Path) -> None:
    words = ("--baseline", files / "float.onnx", "--candidate", files / "broken.onnx", *DATA)
    found = glyphpress("gate", *words)
    assert found.code == 1
    assert "FAIL" in found.out
    assert one_line(found.err).startswith("glyphpress: FAIL: broken.onnx (drop")
    assert "'4' (" in found.out.split("suffered most: ")[1]
    assert "'7' (" in found.out.split("suffered most: ")[1]
    told = glyphpress("gate", *words, "--json")
    assert told.code == 1
    judged = json.loads(told.out)
    assert (judged["outcome"], judged["verdicts"][0]["limit"]) == ("FAIL", "drop")
    assert {row["label"] for row in judged["comparison"]["per_class"] if row["drop"] > 0.5} == {"4", "7"}


def test_the_gate_says_when_it_cannot_say(glyphpress: Run, files: Path) -> None:
    found = glyphpress("gate", "--baseline", files / "float.onnx", "--candidate", files / "float.onnx", *DATA)
    assert found.code == 5
    assert "INCONCLUSIVE" in found.out
    assert "about 900 images like these would decide" in found.out


def test_the_gate_judges_saved_evaluations_by_a_policy_file(glyphpress: Run, tmp_path: Path) -> None:
    for name, evaluation in zip(("a", "b"), pair(30, 5, 18_800, size=2000), strict=True):
        evaluation.save(tmp_path / f"{name}.npz")
    words = ("--baseline", tmp_path / "a.npz", "--candidate", tmp_path / "b.npz")
    policy = tmp_path / "gate.toml"
    policy.write_text('[drop]\nmax = "0.3pp"\n[size]\nmax = "1KB"\naction = "warn"')
    warned = glyphpress("gate", *words, "--policy", policy)
    assert warned.code == 0
    assert "FAIL         size (only warns)" in warned.out
    assert glyphpress("gate", *words, "--policy", policy, "--max-drop", "0.05pp").code == 1
    idle = glyphpress("gate", *words, "--policy", policy, "--threads", "2")
    assert (idle.code, idle.out) == (2, "")
    assert "--threads would do nothing: saved evaluations are not run" in idle.err
    policy.write_text('[drop]\nmaximum = "0.3pp"')
    wrong = glyphpress("gate", *words, "--policy", policy)
    assert (wrong.code, wrong.out) == (2, "")
    assert "unknown key 'drop.maximum'; did you mean max?" in one_line(wrong.err)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(["none.onnx", "float.onnx", *DATA], 3, "none.onnx: no such file", id="no artifact"),
        pytest.param(["none.npz", "float.onnx", *DATA], 3, "none.npz: no such file", id="no evaluation"),
        pytest.param(["float.onnx", "float.onnx"], 2, "float.onnx is an artifact.*add --data", id="no images"),
        pytest.param(["other.npz", "float.onnx", *DATA], 3, "evaluated on other images", id="other images"),
        pytest.param(["float.onnx", "nan.onnx", *DATA], 3, "(?i)nan|finite", id="NaN"),
        pytest.param(["foreign.onnx", "float.onnx", *DATA], 3, r"foreign\.onnx.*glyphpress adopt", id="no sidecar"),
        pytest.param(["float.onnx", "noise.onnx", *DATA], 3, r"noise\.onnx", id="no model"),
        pytest.param(["float.onnx", "float.onnx", "--data", "builtin:digit"], 2, "builtin:digits", id="unknown data"),
    ],
)
def test_bad_evidence_is_one_line_and_never_a_pass(
    *, glyphpress: Run, files: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(files)
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(files / "other.npz")
    linear_reader(files / "nan.onnx", nan=True)
    linear_reader(files / "foreign.onnx")
    (files / "foreign.onnx.json").unlink()
    (files / "noise.onnx").write_bytes(b"noise")
    compared = glyphpress("compare", *words)
    gated = glyphpress("gate", "--baseline", words[0], "--candidate", words[1], *words[2:], "--max-drop", "99pp")
    for found in (compared, gated):
        assert (found.code, found.out) == (code, ""), found
        assert re.search(message, one_line(found.err)), found.err


def altered(source: Path, name: str, **arrays: object) -> Path:
    """Write a copy of a saved evaluation with other arrays; None leaves one out."""
    with np.load(source) as stored:
        held = dict(stored) | arrays
    np.savez(source.with_name(name), **{key: np.asarray(value) for key, value in held.items() if value is not None})
    return source.with_name(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"labels": None}, "labels", id="missing labels"),
        pytest.param({"labels": np.arange(10)}, "do not fit", id="too few labels"),
        pytest.param({"labels": np.zeros((5_000, 11), np.int64)}, "do not fit", id="labels in a table"),
        pytest.param({"labels": np.full(5_000, 10)}, "a label lies outside", id="a label of no class"),
        pytest.param({"labels": np.full(5_000, 3)}, "under other labels", id="other labels"),
        pytest.param({"logits": np.full((5_000, 10), np.nan, np.float32)}, "NaN or infinite", id="NaN logits"),
        pytest.param({"logits": np.full((5_000, 10), np.inf, np.float32)}, "NaN or infinite", id="infinite logits"),
        pytest.param({"logits": np.zeros((5_000, 9), np.float32)}, "do not fit", id="a class less"),
        pytest.param({"sample_ids": np.arange(5_000)[::-1].astype("S32")}, "another order", id="another order"),
        pytest.param({"sample_ids": np.arange(9, 5_009).astype("S32")}, "saw other images", id="other images"),
        pytest.param(
            {
                "logits": np.zeros((0, 10), np.float32),
                "labels": np.zeros(0, np.int64),
                "sample_ids": np.zeros(0, "S32"),
            },
            "no images were evaluated",
            id="zero images",
        ),
        pytest.param({"meta": "{}"}, "not a saved evaluation", id="no facts"),
    ],
)
def test_a_saved_evaluation_that_cannot_be_judged_is_one_line_and_never_a_pass(
    *, glyphpress: Run, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    for name, evaluation in zip(("a", "b"), pair(0, 0, 5_000), strict=True):
        evaluation.save(tmp_path / f"{name}.npz")
    bad = altered(tmp_path / "b.npz", "bad.npz", **change)
    words = ("--max-drop", "99pp", "--verdict", tmp_path / "v.json", "--evidence", tmp_path / "e.json")
    for files in (("a.npz", bad), (bad, "a.npz")):
        base, own = (tmp_path / file for file in files)
        found = glyphpress("gate", "--baseline", base, "--candidate", own, *words)
        assert (found.code, found.out) == (3, ""), found
        assert message in one_line(found.err)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "bad.npz"]


def test_a_set_that_is_repeated_twenty_times_decides_nothing_that_it_did_not_decide_once(
    glyphpress: Run, tmp_path: Path
) -> None:
    words = ("--max-drop", "1pp", "--policy", "smoke", "--evidence", tmp_path / "e.json")
    for name, evaluation in zip(("a", "b"), pair(4, 0, 500), strict=True):
        evaluation.save(tmp_path / f"{name}.npz")
        arrays = {key: np.repeat(getattr(evaluation, key), 20, axis=0) for key in ("logits", "labels", "sample_ids")}
        replace(evaluation, **arrays).save(tmp_path / f"{name}{name}.npz")
    once = glyphpress("gate", "--baseline", tmp_path / "a.npz", "--candidate", tmp_path / "b.npz", *words)
    files = ("--baseline", tmp_path / "aa.npz", "--candidate", tmp_path / "bb.npz")
    again = glyphpress("gate", *files, *words, "--force")
    assert (again.code, once.code) == (5, 5)
    copies = "500 of numbered/test (and 9,500 copies of them, not counted)"
    assert again.out == once.out.replace("500 of numbered/test", copies)
    stored = glyphpress("gate", "--from", tmp_path / "e.json", "--max-drop", "1pp", "--policy", "smoke")
    assert (stored.code, stored.out) == (5, again.out)


def test_saved_evaluations_are_held_to_the_images_where_these_are_given(glyphpress: Run, files: Path) -> None:
    """Whatever digest of the data set they name."""
    base = evaluate_file(files / "float.onnx", digits())
    arrays = {key: np.repeat(getattr(base, key), 2, axis=0) for key in ("logits", "labels", "sample_ids")}
    labels = base.labels.copy()
    labels[7] = 9 - labels[7]
    for changed in (replace(base, **arrays), replace(base, labels=labels)):
        changed.save(files / "changed.npz", force=True)
        for given in (("changed.npz", "float.onnx"), ("float.onnx", "changed.npz")):
            baseline, candidate = (files / name for name in given)
            refused = glyphpress("gate", "--baseline", baseline, "--candidate", candidate, *DATA, "--max-drop", "9pp")
            assert (refused.code, refused.out) == (3, "")
            assert "changed.npz says that it is of builtin:digits/test, but its images or" in one_line(refused.err)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(["--max-drop", "0.3"], 2, "needs a number and a unit", id="no unit"),
        pytest.param(["--max-drop", "0pp"], 2, "drop.max", id="a margin of nothing"),
        pytest.param(
            ["--max-p95", "2ms"], 2, "b.npz is only a saved evaluation, which cannot be timed", id="no timing"
        ),
        pytest.param(
            ["--target", "ort-cup", "--max-p95", "2ms"], 2, "only a saved evaluation", id="no timing there either"
        ),
        pytest.param(["--policy", "none.toml"], 2, "no such policy file", id="no policy"),
    ],
)
def test_what_the_gate_cannot_mean_is_a_usage_error(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, evaluation in zip(("a", "b"), pair(0, 0, 5_000), strict=True):
        evaluation.save(tmp_path / f"{name}.npz")
    found = glyphpress("gate", "--baseline", "a.npz", "--candidate", "b.npz", *words)
    assert (found.code, found.out) == (code, "")
    assert message in " ".join(found.err.split())


def test_an_unknown_target_is_answered_with_the_nearest(glyphpress: Run, files: Path) -> None:
    found = glyphpress("evaluate", files / "float.onnx", *DATA, "--target", "ort-cup")
    assert found.code == 2
    assert "ort-cpu" in one_line(found.err)


def test_a_report_is_printed_again(glyphpress: Run, tmp_path: Path) -> None:
    pressed_report().save(tmp_path / "report.json")
    assert "PASS  winner" in glyphpress("report", tmp_path).out
    assert glyphpress("report", tmp_path, "--markdown").out.startswith("# cnn.pt, pressed")
    assert json.loads(glyphpress("report", tmp_path, "--json").out)["rows"][1]["name"] == "int8.onnx"
    missing = glyphpress("report", tmp_path / "none")
    assert missing.code == 3
    assert "no report there" in one_line(missing.err)


def test_help_knows_the_exit_codes_and_the_commands(glyphpress: Run) -> None:
    from toolchain.core.errors import EXIT_CODES

    codes = glyphpress("help", "exit-codes")
    assert {int(line.split()[0]) for line in codes.out.splitlines()} == {0} | {code for _, code in EXIT_CODES}
    assert "--baseline" in glyphpress("help", "gate").out
    unknown = glyphpress("help", "gaet")
    assert unknown.code == 2
    assert "did you mean gate" in one_line(unknown.err)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        pytest.param('[cost]\nmax = "0.5pp"\ncosts = {"O->0" = 0}', "[cost] costs: 'O->0' names 'O'", id="cost"),
        pytest.param('[confusables]\nmax = "2pp"\ngroups = ["XY"]', "[confusables] group 'XY'", id="confusables"),
    ],
)
def test_a_policy_of_foreign_classes_is_refused_before_anything_runs(
    glyphpress: Run, tmp_path: Path, table: str, said: str
) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text(table)
    # No models: reading them would be another error.
    (tmp_path / "a.onnx").write_bytes(b"x")
    files = ("--baseline", tmp_path / "a.onnx", "--candidate", tmp_path / "a.onnx")
    refused = glyphpress("gate", *files, *DATA, "--policy", policy)
    assert refused.code == 2
    assert said in one_line(refused.err)
    assert "take it out" in refused.err
    made = ("-o", tmp_path / "b.npz")
    assert glyphpress("gate", "baseline", tmp_path / "a.onnx", *DATA, "--policy", policy, *made).code == 2
    pressed = glyphpress("press", "x.pt", *DATA, "--policy", policy, "--out", tmp_path / "o")
    assert pressed.code == 2
    assert said in one_line(pressed.err)
