"""A few kills of the quick commands, and proof that the harness sees faults; `make kills` does 200 kills of all."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import pytest
import rich_click as click

from tests.kills.cases import CASES, Case
from tests.kills.run import kills
from toolchain.cli.main import COMMANDS

QUICK = ("quantize", "evaluate", "data fetch", "targets setup")


@pytest.mark.slow
def test_kills_leave_old_or_new_and_nothing_for_ever() -> None:
    done, faults = kills(10, seed=1, cases=[case for case in CASES if case.name in QUICK])
    assert faults == []
    assert sum(done[name] for name in QUICK) == 10


def half() -> None:
    with Path("o.txt").open("w") as file:
        file.write("new, ")
        file.flush()
        Path("tmp/step").touch()
        file.write("whole\n")
    Path("tmp/step").unlink()


def part() -> None:
    Path("o.txt.part").write_text("new\n")
    Path("o.txt.part").rename("o.txt")


def hidden() -> None:
    room = Path(f".room-{os.getpid()}")
    room.write_text("new\n")
    room.rename("o.txt")


def removed() -> None:
    Path("o.txt").unlink(missing_ok=True)
    part()


def pair() -> None:
    part()
    Path("tmp/o.json").write_text("1\n")
    Path("tmp/o.json").rename("o.txt.json")


def told() -> None:
    try:
        part()
    except BaseException:
        traceback.print_exc()
        raise


def broken() -> None:
    part()
    sys.exit(3)


PLANTED = {each.__name__: each for each in (half, part, hidden, removed, pair, told, broken)}


@click.command()
@click.argument("name")
@click.option("--old", is_flag=True)
@click.option("--force", is_flag=True)
def planted(name: str, *, old: bool, force: bool) -> None:
    """Write o.txt in a wrong way."""
    if old:
        Path("o.txt").write_text("old\n")
        Path("o.txt.json").write_text("0\n")
    elif Path("o.txt").exists() and not force:
        raise click.UsageError("it is there")
    else:
        PLANTED[name]()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("half", "o.txt is neither old nor new"),
        ("part", "o.txt.part is neither old nor new"),
        ("hidden", "is left"),
        ("removed", "the old o.txt is gone"),
        ("pair", "beside a whole new result: o.txt.json is not new"),
        ("told", "a traceback"),
        ("broken", "exit 3 WITHOUT a kill"),
    ],
)
def test_faults_that_are_planted_are_seen(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "planted", ("tests.kills.test_kills:planted", "Break."))
    case = Case(name, ("planted", name), "o.txt", ("planted", name, "--old"))
    done, faults = kills(12, seed=2, cases=[case], share_between=1.0)
    assert any(fault in each for each in faults), faults
    assert done[name] == (0 if name == "broken" else 12)
