"""The layers of the architecture: a module imports from its own row or from rows below it, never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "calibration", "glyphpress", "targets", "toolchain")
ROWS = (
    ("bench",),
    ("glyphpress",),
    ("toolchain.cli",),
    ("toolchain.commands",),
    ("toolchain.report", "toolchain.ci"),
    ("toolchain.recipe",),
    ("toolchain.compress",),
    ("toolchain.gate",),
    ("toolchain.training", "toolchain.profiling"),
    ("toolchain.evaluation",),
    ("toolchain.export", "toolchain.quantize"),
    ("toolchain.explain",),
    ("toolchain.checkpoint",),
    ("toolchain.formats",),
    ("toolchain.models", "toolchain.stats"),
    ("toolchain.core",),
    ("targets", "calibration"),
    ("glyphpress.registry", "glyphpress.extras"),
)
"""Rooms from the top down: each package or loose module under toolchain/, and the other packages as a whole, but for
the registry, on which all stand."""
RANK = {room: number for number, row in enumerate(ROWS) for room in row}

Import = tuple[str, str, str]
"""(module, imported module, imported name; empty for the module itself)."""


def modules(root: Path) -> dict[str, Path]:
    """Return the source files of the packages by their dotted names."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path, *, tables: bool = True) -> Iterator[Import]:
    """Yield every import of one source file by another: in functions and for type checks too.

    tables: in the lazy tables too, which name what they import on use as "package.module:Class".
    """
    known = modules(root)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name, "") for alias in node.names if alias.name in known)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    if inner in known:
                        yield module, inner, ""
                    elif node.module in known:
                        yield module, node.module, alias.name
            elif tables and isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
                named, _, name = node.value.partition(":")
                if named in known and name.isidentifier():
                    yield module, named, name


def room(module: str) -> str:
    """Return the room of a module: `targets`, or `toolchain.cli`."""
    if module in RANK:
        return module
    package, *rest = module.split(".")
    return package if package != "toolchain" or not rest else f"{package}.{rest[0]}"


def circles(edges: set[tuple[str, str]]) -> set[frozenset[str]]:
    """Return a circle, then one that remains when an arrow of it is removed, and so on until there is none."""
    found, left = set(), set(edges)
    while True:
        graph: dict[str, list[str]] = {}
        for importer, imported in sorted(left):
            graph.setdefault(importer, []).append(imported)
        try:
            TopologicalSorter(graph).prepare()
            return found
        except CycleError as error:
            circle = error.args[1]
            found.add(frozenset(circle))
            left.discard((circle[1], circle[0]))


@pytest.fixture(scope="module")
def found() -> set[Import]:
    return {one for one in imports(ROOT) if one[0] != "toolchain"}


def test_every_room_has_its_row(found: set[Import]) -> None:
    assert len(found) > 500
    rooms = {room(module) for module in modules(ROOT)} - {"toolchain"}
    assert rooms <= set(RANK)


def test_no_module_imports_from_a_row_above_its_own(found: set[Import]) -> None:
    upward = {(module, imported) for module, imported, _ in found if RANK[room(imported)] < RANK[room(module)]}
    assert upward == set()


def test_no_rooms_import_each_other_in_a_circle(found: set[Import]) -> None:
    edges = {(room(module), room(imported)) for module, imported, _ in found if room(module) != room(imported)}
    assert circles(edges) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A table names what stands on it, and that may import the table, so tables do not count here."""
    edges = {(module, imported) for module, imported, _ in imports(ROOT, tables=False)}
    assert circles(edges) == set()


def test_no_private_name_is_imported_from_another_module(found: set[Import]) -> None:
    assert {one for one in found if one[2].startswith("_") and not one[2].startswith("__")} == set()


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    sources = {
        "toolchain/a.py": "import targets.one\nfrom toolchain import b\nfrom toolchain.b import _hidden\n",
        "toolchain/b.py": "def f():\n    from toolchain.a import x\nT = {'n': 'targets.one:Class'}\n",
        "targets/one.py": "",
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    assert set(imports(tmp_path)) == {
        ("toolchain.a", "targets.one", ""),
        ("toolchain.a", "toolchain.b", ""),
        ("toolchain.a", "toolchain.b", "_hidden"),
        ("toolchain.b", "toolchain.a", "x"),
        ("toolchain.b", "targets.one", "Class"),
    }
    assert circles({("a", "b"), ("b", "a"), ("b", "c")}) == {frozenset("ab")}
