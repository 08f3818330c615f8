"""Tests mirror the source folder by folder: what tests a room is found under the name of the room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
NO_ROOMS = {"fixtures", "fuzz", "kills", "schemas"}
"""Folders that hold what tests share, and harnesses that run the whole program."""
PROGRAM = {"glyphpress", "main"}
"""The fixture and the function that run a command: a test of `toolchain.cli` may use nothing else of it."""


def test_files() -> list[Path]:
    """Return the test modules in folders, which belong to a room; those beside this one are about the whole tree."""
    paths = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    return sorted(path for path in paths if len(path.parts) > 1 and path.parts[0] not in NO_ROOMS)


def names(path: Path) -> tuple[str, str]:
    """Return the dotted names of a test's room and of the module that it is called after."""
    room = ".".join(path.parent.parts)
    return room, f"{room}.{path.stem.removeprefix('test_')}"


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def uses(room: str, module: str, source: str) -> bool:
    """Return whether a test imports something of a room, or reaches it in another way that shows.

    A test of `cli` runs the program, and so may one of a room with a command of its name. One that is called after a
    module of its room may run the program too, or reach it by others of its package, as a target by the catalog.
    """
    tree = ast.parse(source)
    found = list(imported(tree))
    if any(name == room or name.startswith(f"{room}.") for name in found):
        return True
    runs = bool(PROGRAM & {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})
    package = room.partition(".")[0]
    if (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():
        return runs or any(name.startswith(f"{package}.") for name in found)
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return runs and (room == "toolchain.cli" or room.rpartition(".")[2] in words)


@pytest.mark.parametrize("folder", sorted({path.parent for path in test_files()}), ids=str)
def test_a_folder_of_tests_has_a_room_of_its_name(folder: Path) -> None:
    assert (ROOT / folder).is_dir() or (ROOT / folder).with_suffix(".py").is_file()


def test_a_test_imports_or_runs_something_of_its_room() -> None:
    strangers = [
        str(path) for path in test_files() if not uses(*names(path), (TESTS / path).read_text(encoding="utf-8"))
    ]
    assert not strangers


def test_only_conftest_and_fixtures_hold_what_tests_share() -> None:
    shared = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if path.relative_to(TESTS).parts[0] not in NO_ROOMS
        and not path.name.startswith("test_")
        and path.name not in ("conftest.py", "__init__.py")
    ]
    assert not shared


RUNS = "def test(glyphpress): glyphpress('gate')"


@pytest.mark.parametrize(
    ("test", "source", "expected"),
    [
        ("toolchain/gate/test_any.py", "from toolchain.gate.policy import Policy", True),
        ("toolchain/gate/test_any.py", "def test():\n    from toolchain.gate import plan", True),
        ("toolchain/gate/test_any.py", "from toolchain.gateway import open", False),
        ("toolchain/gate/test_any.py", RUNS, True),
        ("toolchain/stats/test_any.py", RUNS, False),
        ("toolchain/gate/test_policy.py", RUNS, True),
        ("toolchain/cli/test_any.py", RUNS, True),
    ],
)
def test_what_counts_as_using_a_room(test: str, source: str, expected: bool) -> None:
    assert uses(*names(Path(test)), source) is expected
