"""A new command is one file and one line in the table of commands."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.extended import Extended

COMMAND = '''
"""`glyphpress count-classes`: how many classes a data set has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import console, options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


@click.command("count-classes")
@options.data_option
@options.run_options(seed=True)
@options.json_option
def count_classes(*, data: str, context: RunContext, as_json: bool) -> None:
    """Count the classes of a data set.

    \\b
    Example:
      glyphpress count-classes --data builtin:digits
    """
    from calibration.load import load

    classes = load(data, "test", context.data_root).classes
    if as_json:
        console.emit("count-classes", {"classes": len(classes), "seed": context.seed})
    else:
        console.tell(f"{len(classes)} classes")
'''
LINE = '    "count-classes": ("toolchain.cli.count_classes:count_classes", "Count the classes of a data set."),'
DATA = ("--data", "builtin:digits")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    """The program with one more command."""
    return Extended.of(
        tmp_path_factory.mktemp("extended"),
        "toolchain/cli/count_classes.py",
        COMMAND,
        table="toolchain/cli/main.py",
        after="COMMANDS = {",
        line=LINE,
    )


def test_help_lists_a_new_command_and_shows_its_page(extended: Extended) -> None:
    listed = extended.run("--help")
    assert listed.returncode == 0, listed.stderr
    assert "count-classes  Count the classes of a data set." in listed.stdout
    page = extended.run("help", "count-classes")
    assert page.returncode == 0, page.stderr
    assert page.stdout.startswith("Usage: glyphpress count-classes [OPTIONS]")
    assert all(option in page.stdout for option in ("--data DATA", "--seed", "--json", "--quiet", "--verbose"))


def test_completion_offers_a_new_command(extended: Extended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "glyphpress cou")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert extended.run().stdout == "plain,count-classes\n"
    monkeypatch.setenv("COMP_WORDS", "glyphpress count-classes --se")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert extended.run().stdout == "plain,--seed\n"


def test_a_new_command_runs_and_fails_as_the_others_do(extended: Extended) -> None:
    plain = extended.run("count-classes", *DATA)
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "10 classes\n", "")
    answer = json.loads(extended.run("-q", "count-classes", *DATA, "--seed", 3, "--json").stdout)
    assert answer == {"schema": "glyphpress/count-classes/1", "classes": 10, "seed": 3}
    near = extended.run("count-clases", *DATA)
    assert (near.returncode, near.stdout) == (2, "")
    assert "did you mean count-classes" in near.stderr
