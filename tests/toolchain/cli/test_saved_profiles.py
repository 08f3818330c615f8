"""`profile --save`, `profile list`, `compare` and `history` as a user runs them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.saved_runs import kept, saved_run
from tests.fixtures.small_models import conv_net

Program = Callable[..., Any]
SHORT = ("--seconds", "1ms", "--runs", "40")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, which is the current one."""
    monkeypatch.chdir(tmp_path)
    conv_net(tmp_path / "a.onnx")
    return tmp_path


def test_a_run_is_kept_listed_and_compared(glyphpress: Program, here: Path) -> None:
    for words in ((), ("--commit", "abc1234")):
        done = glyphpress("profile", "a.onnx", *SHORT, "--save", *words)
        assert done.code == 0, done.err
        assert "saved profiles/20" in done.out
    listed = json.loads(glyphpress("profile", "list", "--json").out)
    assert listed["schema"] == "glyphpress/profile-list/1"
    assert [run["commit"] for run in listed["runs"]][1] == "abc1234"
    first, second = (run["path"] for run in listed["runs"])
    shown = glyphpress("profile", "list").out
    assert shown.splitlines()[0].split() == ["run", "commit", "artifact", "target", "p50", "machine", "quiet"]
    assert max(map(len, shown.splitlines())) <= 100
    assert glyphpress("profile", "list", "--markdown", "l.md", "--csv", "l.csv").code == 0
    assert (here / "l.md").read_text().startswith("| run | commit | artifact | target | p50 |")
    lines = list(csv.DictReader((here / "l.csv").read_text().splitlines()))
    assert [line["run"] for line in lines] == [first, second]
    assert [float(line["p50_ns"]) for line in lines] == [run["files"][0]["p50_ns"] for run in listed["runs"]]
    taken = glyphpress("profile", "list", "--csv", "l.csv")
    assert (taken.code, taken.out) == (2, "")
    assert glyphpress("profile", "list", "--csv", "l.csv", "--force").code == 0
    done = glyphpress("profile", "compare", first, second, "--markdown", "c.md", "--csv", "c.csv")
    assert done.code == 0, done.err
    assert "a.onnx has the same content in both runs" in done.out
    assert (here / "c.md").read_text().startswith("| artifact | target | before | after | ratio |")
    (line,) = csv.DictReader((here / "c.csv").read_text().splitlines())
    said = json.loads(glyphpress("profile", "compare", first, "profiles", "--json").out)
    assert said["schema"] == "glyphpress/profile-compare/1"
    assert float(line["ratio"]) == said["rows"][0]["ratio"]["ratio"]
    assert said["run"]["path"] == second


def test_a_list_of_nothing_writes_no_file_and_says_so(glyphpress: Program, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    done = glyphpress("profile", "list", tmp_path / "profiles", "--csv", tmp_path / "l.csv")
    assert done.code == 3
    assert "holds no saved run; `glyphpress profile FILE --save" in done.err
    assert not (tmp_path / "l.csv").exists()


def test_the_folder_stands_behind_save_and_a_model_there_is_refused(glyphpress: Program, here: Path) -> None:
    done = glyphpress("profile", "--save", "kept", "a.onnx", *SHORT, "--json")
    assert (done.code, json.loads(done.out)["schema"]) == (0, "glyphpress/profile/1")
    assert "saved kept/20" in done.err
    assert len(list((here / "kept").iterdir())) == 1
    refused = glyphpress("profile", "--save", "a.onnx", *SHORT)
    assert (refused.code, refused.out) == (2, "")
    assert "--save" in refused.err


def test_a_file_that_is_called_as_a_command_is_still_timed(glyphpress: Program, here: Path) -> None:
    (here / "a.onnx").rename(here / "list")
    assert "no such folder" in glyphpress("profile", "list").err
    # It is no model by its name, which is said of the file and not of a command.
    timed = glyphpress("profile", "./list", *SHORT)
    assert (timed.code, "folder" in timed.err, "list" in timed.err) == (3, False, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-q", "list"], "no such folder"),
        (["compare", "a.json"], "Missing argument 'RUN'"),
        (["--json", "list"], "list"),
        (["a.onnx", "--commit", "x"], "give --save too"),
        (["a.onnx", "--save", "--per-op"], "--save has no meaning with --per-op; save the latency of the whole file"),
        (["a.onnx", "--save", "--sweep-threads", "1,2"], "save a run for each number, such as `--threads 2"),
        (["a.onnx", "--histogram", "--sweep-batch", "1"], "--histogram has no meaning with a sweep"),
        (["compare", "a.onnx", "a.onnx", "--csv", "x", "--markdown", "x"], "name one file"),
    ],
)
def test_words_that_cannot_be_meant(glyphpress: Program, here: Path, words: list[str], said: str) -> None:
    done = glyphpress("profile", *words)
    assert (done.code in (2, 3), done.out, done.err.count("\n")) == (True, "", 1)
    assert said in done.err
    assert sorted(path.name for path in here.iterdir()) == ["a.onnx"]


@pytest.mark.parametrize(("median", "code"), [(100_000, 0), (120_000, 1)])
def test_the_exit_code_says_whether_a_file_became_slower(
    glyphpress: Program, tmp_path: Path, median: int, code: int
) -> None:
    first, second = kept(tmp_path, saved_run(0), saved_run(1, median, sha256="b" * 64))
    assert glyphpress("profile", "compare", first, second).code == 0
    done = glyphpress("profile", "compare", first, second, "--fail-on-slower")
    assert done.code == code
    assert "a.onnx" in done.out


def test_a_bad_file_in_a_list_is_named_beside_the_good_ones(glyphpress: Program, tmp_path: Path) -> None:
    kept(tmp_path, saved_run())
    for name in ("x.json", "y.json"):
        (tmp_path / name).write_text("{}")
    done = glyphpress("profile", "list", tmp_path)
    assert done.code == 3
    assert done.out.count("a.onnx") == 1
    assert [name in done.err for name in ("x.json", "y.json")] == [True, True]
    assert len(json.loads(glyphpress("profile", "list", tmp_path, "--json").out)["unreadable"]) == 2


def test_a_histogram_is_drawn_below_the_table(glyphpress: Program, here: Path) -> None:
    drawn = glyphpress("profile", "a.onnx", *SHORT, "--histogram")
    assert drawn.code == 0, drawn.err
    heading = drawn.out.index("a.onnx on ort-cpu, ")
    assert "#" in drawn.out[heading:]
    assert max(map(len, drawn.out[heading:].splitlines())) <= 100


def test_the_table_fits_a_hundred_columns(glyphpress: Program, here: Path) -> None:
    conv_net(here / "b.onnx", channels=16)
    done = glyphpress("profile", "a.onnx", "b.onnx", "--runs", "1000", "--seconds", "1ms", "--markdown", "t.md")
    assert max(map(len, done.out.splitlines()[:3])) <= 100
    assert "not shown at this width: " in done.out
    assert "p95 of first" in (here / "t.md").read_text()


@pytest.mark.parametrize("words", [("help", "profile", "compare"), ("profile", "compare", "--help")])
def test_the_usage_of_a_command_below_names_no_files_of_profile(glyphpress: Program, words: tuple[str, ...]) -> None:
    assert glyphpress(*words).out.startswith("Usage: glyphpress profile compare [OPTIONS] BASE RUN\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("profile li", "plain,list"),
        ("profile a", "plain,a.onnx"),
        ("profile list --js", "plain,--json"),
        ("profile --hist", "plain,--histogram"),
        ("profile compare x.j", "plain,x.json"),
    ],
)
def test_completion_offers_files_and_commands(
    glyphpress: Program, here: Path, monkeypatch: pytest.MonkeyPatch, typed: str, offered: str
) -> None:
    (here / "x.json").write_text("{}")
    words = typed.split()
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"glyphpress {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert offered in glyphpress().out.splitlines()


def test_the_history_says_since_which_commit_a_file_is_slower(glyphpress: Program, tmp_path: Path) -> None:
    # 60 runs, so that the chart leaves out the first ten.
    times = np.repeat([100_000, 110_000], [52, 8]) * np.exp(np.random.default_rng(0).normal(0, 0.01, 60))
    folder = tmp_path / "profiles"
    kept(folder, *(saved_run(number, float(ns)) for number, ns in enumerate(times)))
    shown = glyphpress("profile", "history", folder, "--csv", tmp_path / "h.csv", "--markdown", tmp_path / "h.md")
    assert (shown.code, shown.err) == (0, "")
    assert "a.onnx on ort-cpu: slower since c52 (not yet c51): 1.10 [" in shown.out
    (marked,) = [line for line in shown.out.splitlines() if line.endswith("slower 1.10")]
    assert marked.startswith("c52 ")
    chart = [line for line in shown.out.splitlines() if line.startswith("c")]
    assert len(chart) == 50
    assert max(map(len, chart)) <= 100
    assert "10 earlier runs not drawn; --json has all" in shown.out
    levels = [line["level"] for line in csv.DictReader((tmp_path / "h.csv").read_text().splitlines())]
    assert (levels.count("0"), levels.count("1")) == (52, 8)
    markdown = (tmp_path / "h.md").read_text()
    assert markdown.startswith("- a.onnx on ort-cpu: slower since c52 (not yet c51): 1.10 \\[")
    assert f"\n    {marked}\n" in markdown
    failed = glyphpress("profile", "history", folder, "--fail-on-slower", "--json")
    said = json.loads(failed.out)
    assert (failed.code, said["schema"], said["outcome"]) == (1, "glyphpress/profile-history/1", "FAIL")
    assert said["series"][0]["changes"][0]["commit"] == "c52"
    accepted = glyphpress("profile", "history", folder, "--fail-on-slower", "--since", "c52", "-q")
    assert (accepted.code, accepted.err.count("\n")) == (0, 0)


def test_an_empty_folder_says_what_fills_it(glyphpress: Program, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    listed = glyphpress("profile", "list", tmp_path)
    assert (listed.code, listed.out) == (0, "")
    assert f"--save {tmp_path}` makes one" in listed.err
    refused = glyphpress("profile", "history", tmp_path)
    assert (refused.code, f"--save {tmp_path}` makes one" in refused.err) == (3, True)


def test_a_short_or_broken_history_is_no_pass(glyphpress: Program, tmp_path: Path) -> None:
    kept(tmp_path, saved_run())
    assert glyphpress("profile", "history", tmp_path).code == 0
    done = glyphpress("profile", "history", tmp_path, "--fail-on-slower")
    assert (done.code, done.err.count("\n")) == (5, 1)
    (tmp_path / "x.json").write_text("{}")
    broken = glyphpress("profile", "history", tmp_path, "--fail-on-slower")
    assert (broken.code, broken.out, broken.err.count("\n")) == (3, "", 1)
