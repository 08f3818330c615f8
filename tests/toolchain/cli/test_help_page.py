"""Every page of help reads well in a narrow and in a wide window: in groups, with its example first, and whole."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

import pytest
import rich_click as click

from toolchain.cli import help_page
from toolchain.cli.help_page import PANELS, WIDEST, style_help
from toolchain.cli.main import COMMANDS, GROUPS
from toolchain.cli.main import glyphpress as program
from toolchain.cli.values import Output

NARROW, WIDE = 60, 120


def commands(context: click.Context) -> Iterator[click.Context]:
    """The context of the program and of everything below it."""
    yield context
    if isinstance(context.command, click.Group):
        # A lookup leaves a mark in its context by which `profile` hides its own options.
        lookup = click.Context(context.command)
        for name in context.command.list_commands(lookup):
            command = context.command.get_command(lookup, name)
            assert command is not None
            yield from commands(type(context)(command, info_name=name, parent=context))


def pages() -> list[click.Context]:
    style_help()
    return list(commands(help_page.HelpPage(program, info_name="glyphpress")))


def bare(page: str) -> str:
    """A page without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", page)


@pytest.fixture(params=[NARROW, WIDE, 200], ids="{} columns".format)
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size = os.terminal_size((request.param, 24))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: size)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: size)
    return int(request.param)


@pytest.mark.parametrize("drawn", [False, True], ids=["plain", "drawn"])
def test_no_line_is_wider_than_the_window_and_nothing_is_cut(columns: int, drawn: bool) -> None:
    for context in pages():
        page = bare((help_page._drawn if drawn else help_page._plain)(context))
        assert max(map(len, page.splitlines())) <= min(columns, WIDEST), context.command_path
        inner = min(columns, WIDEST) - 4
        for _, rows in help_page.sections(context):
            lines = list(help_page._aligned(rows, inner))
            assert " ".join(right for _, right in lines).split() == " ".join(text for _, text in rows).split()
            shown, names = ("".join(name for name, _ in pairs) for pairs in (lines, rows))
            assert "".join(shown.split()) == "".join(names.split())
            assert all((left + right).rstrip() in page for left, right in lines), context.command_path


def test_the_example_comes_before_the_details_and_can_be_pasted_when_it_is_folded(columns: int) -> None:
    for context in pages():
        lines = help_page._plain(context).splitlines()
        example = lines.index("  Example:")
        summary = (context.command.help or "").split("\n\n")[0]
        assert " ".join(" ".join(lines[lines.index("") : example]).split()) == " ".join(summary.split())
        block = "\n".join(lines[example + 1 :]).split("\n\n")[0]
        pasted = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
        written = (context.command.help or "").split("Example:\n")[1].strip().splitlines()
        assert pasted == [shlex.split(line) for line in written]


def test_commands_and_options_stand_in_groups() -> None:
    root, *others = pages()
    shown = help_page._plain(root)
    titles = [f"\n{title}:\n" for title in (*GROUPS, "More", "General")]
    assert [shown.count(title) for title in titles] == [1] * len(titles)
    assert sorted(titles, key=shown.index) == titles
    assert {name for names in GROUPS.values() for name in names} <= set(COMMANDS)
    for context in others:
        assert "\nGeneral:\n" in help_page._plain(context), context.command_path
    known = {param.name for context in pages() for param in context.command.get_params(context)}
    assert {name for names in PANELS.values() for name in names.split()} <= known, "a title without its option"


def test_an_option_that_must_be_given_stands_in_the_first_group() -> None:
    for context in pages():
        groups = [str(rows) for title, rows in help_page.sections(context) if title != "Commands"]
        required = ["[required]" in rows for rows in groups]
        assert required == sorted(required, reverse=True), context.command_path


KEPT = {"--save"}
"""Folders that grow from run to run; `--out` is one that a command fills at once."""


def test_files_are_o_and_output_and_folders_are_out() -> None:
    for context in pages():
        for param in context.command.params:
            if "-o" in param.opts or "--output" in param.opts:
                assert param.opts == ["-o", "--output"], context.command_path
                assert not getattr(param.type, "dir_okay", True), context.command_path
            if isinstance(param.type, Output) and param.type.file_okay is False and param.opts[-1] not in KEPT:
                assert param.opts == ["--out"], context.command_path
            if "--out" in param.opts:
                assert param.opts == ["--out"], context.command_path
                assert not getattr(param.type, "file_okay", True), context.command_path
