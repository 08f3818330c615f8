"""Annotations: one workflow command a line, whatever the words, and only inside GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targets.host.text import visible
from tests.fixtures.judgements import STRICT, answers, concluded, gathered
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import annotate, commands

COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^,:]*,)*title=[^,:]*)::(.*)")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Read a command back as the runner of GitHub Actions does: name, properties, message."""
    match = COMMAND.fullmatch(line)
    assert match, line
    properties = dict(one.split("=", 1) for one in match[2].split(","))
    escapes = {"%3A": ":", "%2C": ",", "%0D": "\r", "%0A": "\n", "%25": "%"}

    def plain(words: str) -> str:
        return re.sub("%(3A|2C|0D|0A|25)", lambda found: escapes[found[0]], words)

    return match[1], {key: plain(value) for key, value in properties.items()}, plain(match[3])


def test_what_stops_a_candidate_is_an_error_and_what_warns_a_warning() -> None:
    found = [read(line) for line in commands(concluded(STRICT, gathered(), files=[Path("out/a,b:c.onnx")]))]
    assert [name for name, _, _ in found] == ["error", "warning"]
    _, properties, message = found[0]
    assert properties == {"file": "out/a,b:c.onnx", "line": "1", "title": "glyphpress gate INCONCLUSIVE: drop"}
    assert message.startswith("int8.onnx: ")
    assert "95 % confidence" in message


def test_where_another_candidate_ships_the_beaten_are_only_noticed() -> None:
    found = [read(line) for line in commands(concluded(STRICT, answers(5, 5), answers(400, 0, name="bad.onnx")))]
    assert [name for name, _, _ in found] == ["notice", "notice"]
    assert found[1][2] == "int8.onnx may ship in place of float.onnx"


@cache
def failed() -> Judgement:
    return concluded(STRICT, answers(400, 0, 2000))


@settings(max_examples=100)
@example("100%0A, %25 %3A")
@given(st.text())
def test_any_words_come_back_from_one_line(words: str) -> None:
    (judged,) = failed().candidates
    verdicts = tuple(replace(one, reason=words) for one in judged.verdicts)
    judgement = replace(failed(), candidates=(replace(judged, verdicts=verdicts, path=words),))
    (line,) = commands(judgement)
    _, properties, message = read(line)
    assert message == visible(f"int8.onnx: {words}")
    assert properties.get("file", "") == visible(words)


@pytest.fixture
def actions(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a step of GitHub Actions."""
    return lambda: {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}


def test_they_go_to_stderr_and_the_summary_is_appended(
    actions: Callable[..., dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.md").write_text("of an earlier command\n")
    annotate(failed(), "## it ä\n", actions())
    out, err = capsys.readouterr()
    assert out == ""
    assert [read(line)[0] for line in err.splitlines()] == ["error"]
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "of an earlier command\n## it ä\n"


@pytest.mark.parametrize("environment", [{}, {"GITHUB_ACTIONS": "false"}, {"CI": "true"}])
def test_elsewhere_nothing_is_said(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(failed(), "## it\n", environment | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "summary.md").exists()


def test_a_step_without_a_page_is_annotated_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    annotate(failed(), "## it\n", {"GITHUB_ACTIONS": "true"})
    assert capsys.readouterr().err.startswith("::error ")
