"""Saved profiles: what was measured comes back to the nanosecond, and a file that is not what was saved is refused."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from targets.session import Instructions, RuntimeFacts
from tests.fixtures.saved_runs import kept, saved_run
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.profiling.saved import SavedRow, checked_out, find, list_runs, load, runs_in

Program = Callable[..., Any]
EMULATED = RuntimeFacts("arm64:cortex-a72", "onnxruntime", "1.31", "QEMU", 1, "emulated")


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    counted = SavedRow("b.onnx", "b" * 64, 7, EMULATED.target, instructions=Instructions("b" * 64, EMULATED, (5, 6), 1))
    refused = SavedRow("c.onnx", "c" * 64, 8, "ort-cuda", refused="not here: no device")
    run = saved_run()
    (path,) = kept(tmp_path / "new" / "folder", replace(run, rows=(*run.rows, counted, refused)))
    back = load(path)
    assert back.path == path
    assert [row.key for row in back.rows] == [*(row.key for row in run.rows), counted.key, refused.key]
    assert back.rows[0].timings is not None
    assert run.rows[0].timings is not None
    assert back.rows[0].timings.to_dict() == json.loads(json.dumps(run.rows[0].timings.to_dict()))
    assert back.rows[1].instructions == counted.instructions
    assert back.rows[2].refused == refused.refused


def test_a_run_takes_no_other_runs_name(tmp_path: Path) -> None:
    kept(tmp_path, saved_run())
    with pytest.raises(UsageProblem, match="already there"):
        kept(tmp_path, saved_run())


def edited(path: Path) -> str:
    return path.read_text().replace('"threads": 1', '"threads": 2', 1)


BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "cut": (lambda path: path.read_text()[:-500], "not a saved profile, or cut off"),
    "edited": (edited, "so it was changed"),
    "another result": (lambda _: '{"schema": "glyphpress/report/1"}', "is the report of a press"),
    "newer": (
        lambda path: path.read_text().replace("saved-profile/1", "saved-profile/2"),
        "reads up to 1: update",
    ),
    "foreign": (lambda _: '{"benchmarks": []}', "is no saved profile"),
    "a list": (lambda _: "[1, 2]", "is no saved profile"),
    "empty": (lambda _: "", "not a saved profile"),
    "deep": (lambda _: "[" * 100_000, "not a saved profile"),
}


@pytest.mark.parametrize(("broken", "said"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_not_what_was_saved_is_refused_in_a_line(
    glyphpress: Program, tmp_path: Path, broken: Callable[[Path], str], said: str
) -> None:
    good, bad = kept(tmp_path, saved_run(), saved_run(1))
    bad.write_text(broken(bad))
    with pytest.raises(EvidenceError, match=said):
        load(bad)
    done = glyphpress("profile", "compare", good, bad)
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    runs, unreadable = list_runs(tmp_path)
    assert ([run.path for run in runs], len(unreadable)) == ([good], 1)
    with pytest.raises(EvidenceError, match=bad.name):
        runs_in(tmp_path)


@pytest.mark.parametrize(
    "forged",
    [
        {"rows": [{"artifact": "a.onnx"}]},
        {"rows": 5},
        {"created": "yesterday"},
        {"plan": {}},
        {"threads": "two"},
        {"more": 1},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_a_forged_file_with_a_right_digest_is_refused(tmp_path: Path, forged: dict[str, Any]) -> None:
    from toolchain.profiling import saved

    (path,) = kept(tmp_path, saved_run())
    values = json.loads(path.read_text()) | forged
    path.write_text(json.dumps(values | {"digest": saved._digest(values)}))
    with pytest.raises(EvidenceError, match="not a saved profile"):
        load(path)


def test_runs_are_in_the_order_of_their_commits_if_all_have_one(tmp_path: Path) -> None:
    early, late = saved_run(0), saved_run(1)
    kept(tmp_path / "a", early, late)
    assert [run.commit for run in runs_in(tmp_path / "a")] == ["c0", "c1"]
    # An old commit that was measured last.
    kept(tmp_path / "b", replace(early, committed="2026-10-02T00:00:00+00:00"))
    kept(tmp_path / "b", replace(late, committed="2026-10-01T00:00:00+00:00"))
    assert [run.commit for run in runs_in(tmp_path / "b")] == ["c1", "c0"]
    assert find(tmp_path / "b").commit == "c1"


def test_the_commit_is_that_of_git_or_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    assert checked_out() == ("f" * 40, "")
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    commit, committed = checked_out()
    assert (commit, committed[-6:]) == (head, "+00:00")
    monkeypatch.setenv("PATH", "")
    assert checked_out() == ("f" * 40, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values["rows"][0].pop("timings"), "'timings' is missing"),
        (lambda values: values["rows"][0]["timings"]["facts"].update(cores=4), "'cores'; if a later glyphpress wrote"),
        (lambda values: values["rows"][0]["timings"].update(samples_ns=7), "a value has another type than it should"),
        (lambda values: values.update(rows=4), "a value has another type than it should"),
        (lambda values: values.update(threads="1"), 'threads: it should be a whole number, not "1"'),
    ],
)
def test_a_value_that_cannot_be_read_is_told_in_plain_words(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    (path,) = kept(tmp_path, saved_run())
    values = json.loads(path.read_text())
    del values["digest"]
    change(values)
    content = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps(values | {"digest": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(EvidenceError, match=re.escape(said)) as refused:
        load(path)
    assert not re.search(r"Error|object|argument|__init__", str(refused.value))
