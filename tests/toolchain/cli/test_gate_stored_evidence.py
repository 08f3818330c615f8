"""Stored evidence, candidates that compete, and the files of a gate, through the real program on real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Finished
from tests.fixtures.small_readers import digits, linear_reader, pair, written
from toolchain.commands.gate import GateRequest, gate, judge_stored
from toolchain.gate.policy import choose_policy
from toolchain.report.judgement import Judgement
from toolchain.stats.decision import Outcome

Run = Callable[..., Finished]
DATA = ("--data", "builtin:digits")
SMOKE = ("--policy", "smoke")
FILES = ("junit", "sarif", "markdown", "verdict")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and the one the program runs in, with a float reader, an honest rounding and a broken file."""
    monkeypatch.chdir(tmp_path)
    linear_reader(Path("float.onnx"))
    linear_reader(Path("int8.onnx"), step=1e-4)
    linear_reader(Path("broken.onnx"), dead=(4, 7))
    return tmp_path


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with saved evaluations: float.npz, and good.npz and bad.npz against it on 18,800 images."""
    monkeypatch.chdir(tmp_path)
    base, good = pair(30, 20, 18_800)
    base.save(Path("float.npz"))
    good.save(Path("good.npz"))
    worse = good.labels.copy()
    worse[-900:] = (worse[-900:] + 1) % 10
    written(worse, good.labels, name="bad.onnx").save(Path("bad.npz"))
    return tmp_path


def asked(*candidates: str, base: str = "float.npz") -> tuple[str, ...]:
    return "--baseline", base, *(word for file in candidates for word in ("--candidate", file))


def tables(words: str) -> str:
    Path("gate.toml").write_text(words)
    return "gate.toml"


def changed(source: str, name: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Write a copy of stored evidence in which something was changed."""
    values = json.loads(Path(source).read_text())
    change(values)
    Path(name).write_text(json.dumps(values))
    return name


def test_stored_evidence_gives_the_same_verdicts_without_the_files(glyphpress: Run, folder: Path) -> None:
    ran = glyphpress("gate", *asked("int8.onnx", base="float.onnx"), *DATA, *SMOKE, "--evidence", "e.json", "--json")
    assert ran.code == 0, ran.err
    for file in ("float.onnx", "int8.onnx", "float.onnx.json", "int8.onnx.json"):
        Path(file).unlink()
    again = glyphpress("gate", "--from", "e.json", *SMOKE, "--json")
    assert again.code == 0
    before, after = json.loads(ran.out), json.loads(again.out)
    assert before["schema"] == after["schema"] == "glyphpress/gate/1"
    assert before["verdicts"] == after["verdicts"]
    assert before["candidates"][0]["evidence_sha256"] == after["candidates"][0]["evidence_sha256"] is not None
    # Another policy on the same evidence.
    assert glyphpress("gate", "--from", "e.json").code == 5
    for limit, example in (
        ("p95", '"1ms"'),
        ("stress", '"1pp"'),
        ("leaks", 0),
        ("packed", '"1MB"'),
        ("memory", '"1MB"'),
    ):
        missing = glyphpress("gate", "--from", "e.json", "--policy", tables(f"[{limit}]\nmax = {example}"))
        assert (missing.code, missing.out) == (3, "")
        assert f"the policy or an option limits {limit}, but the evidence does not hold it" in missing.err


def test_every_output_is_written_also_when_the_gate_fails_and_nothing_over_what_is_there(
    glyphpress: Run, folder: Path
) -> None:
    files = [word for name in FILES for word in (f"--{name}", f"gate.{name}")]
    words = ("gate", *asked("broken.onnx", base="float.onnx"), *DATA, *SMOKE, *files, "--evidence", "e.json")
    failed = glyphpress(*words)
    assert failed.code == 1
    assert Judgement.load(Path("gate.verdict")).outcome is Outcome.FAIL
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {*(f"gate.{name}" for name in FILES), "gate.flips.png", "e.json"} <= left.keys()
    for kept in (*(f"gate.{name}" for name in FILES), "gate.flips.png", "e.json"):
        for path in folder.iterdir():
            if path.name in {*(f"gate.{name}" for name in FILES), "gate.flips.png", "e.json"} - {kept}:
                path.unlink()
        again = glyphpress(*words)
        assert (again.code, again.out) == (2, "")
        # One line: nothing was read before the refusal.
        assert again.err.count("\n") == 1
        assert f"{kept} is already there" in again.err
        assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= left.items()
        for name, content in left.items():
            Path(name).write_bytes(content)
    assert glyphpress(*words, "--force").code == 1


def test_inside_github_actions_the_run_is_annotated(
    glyphpress: Run, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pairs / "summary.md"))
    told = glyphpress("gate", *asked("bad.npz"), "--json")
    assert told.code == 1
    assert json.loads(told.out)["outcome"] == "FAIL"
    assert "::error" in told.err
    assert "FAIL" in (pairs / "summary.md").read_text()


def test_two_evaluations_of_one_file_do_not_compete(glyphpress: Run, pairs: Path) -> None:
    Path("copy.npz").write_bytes(Path("good.npz").read_bytes())
    refused = glyphpress("gate", *asked("good.npz", "copy.npz"))
    assert (refused.code, refused.out) == (2, "")
    assert "good.npz and copy.npz are answers of one and the same file, int8.onnx" in " ".join(refused.err.split())


def test_of_several_candidates_one_ships_and_the_losers_do_not_fail_the_gate(glyphpress: Run, pairs: Path) -> None:
    lone = json.loads(glyphpress("gate", *asked("good.npz"), "--json").out)
    stored = ("--evidence", "1.json", "--evidence", "2.json")
    found = glyphpress("gate", *asked("good.npz", "bad.npz"), *stored, "--json")
    assert found.code == 0, found.err
    judged = json.loads(found.out)
    assert (judged["winner"], judged["competitors"], judged["outcome"]) == ("int8.onnx", 2, "PASS")
    assert [one["outcome"] for one in judged["candidates"]] == ["PASS", "FAIL"]
    assert judged["verdicts"] == judged["candidates"][0]["verdicts"]
    # The choice costs confidence: the bound is wider than that of the same file alone.
    assert judged["verdicts"][0]["bound"] > lone["verdicts"][0]["bound"]
    again = json.loads(glyphpress("gate", "--from", "1.json", "--from", "2.json", "--json").out)
    assert again["verdicts"] == judged["verdicts"]
    shown = glyphpress("gate", *asked("good.npz", "bad.npz"))
    assert shown.code == 0
    assert "winner     int8.onnx" in shown.out
    assert glyphpress("gate", *asked("good.npz", "good.npz")).code == 2, "one file twice"


def test_none_of_several_passes_when_none_does(glyphpress: Run, pairs: Path) -> None:
    words = ("--max-size", "0.1KB")
    done = glyphpress("gate", *asked("good.npz", "bad.npz"), *words, "--json")
    assert (done.code, json.loads(done.out)["winner"]) == (1, None)
    assert "int8.onnx (size)" in done.err


def test_train_data_stands_in_for_the_train_split(glyphpress: Run, folder: Path) -> None:
    for label, image in zip(digits().labels[:100], digits().images[:100], strict=True):
        for split in ("train", "test"):
            place = Path("used", split, str(label))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{len(list(place.iterdir()))}.png")
    words = ("gate", *asked("int8.onnx", base="float.onnx"), *DATA, "--policy", tables("[leaks]\nmax = 0"))
    clean = glyphpress(*words)
    assert clean.code == 0, clean.err
    leaked = glyphpress(*words, "--train-data", "used")
    assert leaked.code == 1
    assert "leaks: 100 of 599 test images were seen before" in leaked.out


def test_python_says_the_same_in_as_few_lines(pairs: Path) -> None:
    request = GateRequest(choose_policy("default"), Path("float.npz"), (Path("good.npz"),), evidence=(Path("e.json"),))
    judgement = gate(request)
    assert judgement.outcome is Outcome.PASS
    assert judge_stored(request.policy, [Path("e.json")]).candidates[0].verdicts == judgement.candidates[0].verdicts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "missing option '--baseline'", id="nothing"),
        pytest.param(["--baseline", "float.npz"], "missing option '--candidate'", id="no candidate"),
        pytest.param(["--from", "e.json", "--candidate", "good.npz"], "takes no --candidate", id="from and candidate"),
        pytest.param(["--from", "e.json", *DATA], "takes no --data", id="from and data"),
        pytest.param(["--from", "e.json", "--evidence", "f.json"], "takes no --evidence", id="from and evidence"),
        pytest.param([*asked("good.npz", "bad.npz"), "--evidence", "1.json"], "one for each", id="too few evidence"),
        pytest.param([*asked("good.npz"), "--evidence", "o", "--junit", "o"], "two outputs are called", id="one name"),
        pytest.param([*asked("a.onnx", "sub/a.onnx"), *DATA], "two candidates are called a.onnx", id="one file twice"),
        pytest.param([*asked("good.npz"), "--train-data", "builtin:digits"], r"read for [leaks] only", id="no leaks"),
        pytest.param([*asked("good.npz"), "--policy", "leaks.toml"], "only a saved evaluation", id="leaks need a file"),
        pytest.param([*asked("new.onnx"), "--policy", "leaks.toml"], "add --data", id="an artifact needs images"),
        pytest.param([*asked("good.npz"), "--policy", "none.toml"], "limits nothing", id="limits nothing"),
        pytest.param([*asked("good.npz"), "--policy", "warns.toml"], "only warns", id="only warns"),
        pytest.param([*asked("good.npz"), "init"], "--baseline belongs behind `gate init`", id="options of the group"),
    ],
)
def test_what_a_gate_cannot_mean_is_one_line_before_anything_is_read(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("none", ""), ("warns", '[drop]\nmax = "1pp"\naction = "warn"'), ("leaks", "[leaks]\nmax = 0")):
        Path(f"{name}.toml").write_text(text)
    there = sorted(tmp_path.iterdir())
    done = glyphpress("gate", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert message in done.err
    assert sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda e: e["pairs"]["after"].pop(), "do not fit", id="an answer less"),
        pytest.param(lambda e: e["pairs"]["after_confidence"].__setitem__(5, float("nan")), "", id="NaN"),
        pytest.param(lambda e: e["pairs"]["after"].__setitem__(5, 10), "do not fit", id="no class"),
        pytest.param(lambda e: e["pairs"]["after"].__setitem__(5, "3"), "", id="a word"),
        pytest.param(lambda e: e["pairs"].update(labels=[], before=[], after=[]), "", id="no images"),
        pytest.param(lambda e: e["pairs"]["candidate"].update(bytes=0), "", id="a file of no bytes"),
        pytest.param(lambda e: e["pairs"].pop("labels"), "labels", id="no labels"),
        pytest.param(lambda e: e.update(schema="glyphpress/evidence/2"), "update glyphpress", id="a later schema"),
        pytest.param(lambda e: e.pop("pairs"), "pairs", id="no answers"),
        pytest.param(lambda e: e.clear(), "", id="nothing"),
    ],
)
def test_tampered_evidence_is_one_line_and_never_a_pass(
    *, glyphpress: Run, pairs: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    policy = tables('[drop]\nmax = "0.3pp"\n[size]\nmax = "250KB"')
    glyphpress("gate", *asked("good.npz"), "--policy", policy, "--evidence", "e.json")
    changed("e.json", "bad.json", change)
    done = glyphpress("gate", "--from", "bad.json", "--policy", policy, "--verdict", "v.json", "--junit", "j.xml")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), done.err
    assert message in done.err
    assert not Path("v.json").exists()
    assert not Path("j.xml").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "nonsense"])
def test_what_is_no_evidence_is_one_line(glyphpress: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    done = glyphpress("gate", "--from", tmp_path / "e.json")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1), done.err
    assert "e.json: not stored evidence" in done.err


def test_evidence_never_replaces_itself(glyphpress: Run, pairs: Path) -> None:
    glyphpress("gate", *asked("good.npz"), "--evidence", "e.json")
    before = Path("e.json").read_bytes()
    done = glyphpress("gate", "--from", "e.json", "--verdict", "e.json", "--force")
    assert (done.code, Path("e.json").read_bytes()) == (2, before)
