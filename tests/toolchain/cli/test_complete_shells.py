"""What each shell hands over and gets back: words that it splits are joined, and a value that goes on gets no space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.shell_completion import get_completion_class

from toolchain.cli import complete_shells
from toolchain.cli.main import glyphpress as program

Program = Callable[..., Any]


@pytest.mark.parametrize(
    ("shell", "words", "number", "answer"),
    [
        ("bash", "press --recipe = static-int4", 4, "plain,static-int4"),
        ("bash", "press --recipe =", 3, "plain,static-int4"),
        ("bash", "evaluate a.onnx --target arm64 : cortex-a7", 6, "plain,cortex-a72"),
        ("bash", "evaluate a.onnx --target arm64 :", 5, "plain,cortex-a72"),
        ("bash", "prune cnn-small --layer = features.conv1", 5, "plain,features.conv1="),
        ("zsh", "press --recipe=static-int4", 2, "plain\n--recipe=static-int4\n_"),
        ("zsh", "press --recipe static-int4", 3, "plain\nstatic-int4\n_"),
        ("fish", "press --recipe=static-int4", "--recipe=static-int4", "plain,--recipe=static-int4"),
        ("fish", "press --recipe static-int4", "static-int4", "plain,static-int4"),
    ],
)
def test_each_shell_gets_what_it_replaces(
    monkeypatch: pytest.MonkeyPatch, shell: str, words: str, number: int | str, answer: str
) -> None:
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", f"{shell}_complete")
    complete_shells.register()
    monkeypatch.setenv("COMP_WORDS", f"glyphpress {words}")
    monkeypatch.setenv("COMP_CWORD", str(number))
    completion = get_completion_class(shell)
    assert completion is not None
    given = completion(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE").complete()
    assert answer in (given.split("\n") if shell != "zsh" else given)


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "[[ $value == *[:=/] ]] && compopt -o nospace"),
        ("zsh", "compadd -U -S '' -V unsorted -a unfinished"),
        ("fish", 'string split --max 1 "," $completion'),
    ],
)
def test_the_script_of_each_shell_knows_values_that_go_on(
    glyphpress: Program, monkeypatch: pytest.MonkeyPatch, shell: str, line: str
) -> None:
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", f"{shell}_source")
    assert line in glyphpress().out


def test_a_bug_while_completing_prints_nothing(glyphpress: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "glyphpress pr")
    monkeypatch.setenv("COMP_CWORD", "no number")
    done = glyphpress()
    assert (done.out, done.err) == ("", "")
