"""A target says what it is: nobody outside `targets/` tests its name or class, and a new one is a file and a line."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from targets import catalog
from targets.profiles import profile_names
from targets.target import Target
from tests.fixtures.small_models import conv_net

ROOT = Path(__file__).resolve().parents[1]
TESTS_OF_TEXT = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "find"}
NAMES = {*catalog.names(), *profile_names()}
PREFIXES = (*(f"{family}:" for family in catalog.FAMILIES), *(f"{name}," for name in NAMES), "raspberry-pi-")


def names_a_target(value: object) -> bool:
    return isinstance(value, str) and (value in NAMES | set(catalog.FAMILIES) or value.startswith(PREFIXES))


def is_target_class(node: ast.expr, imports: dict[str, str]) -> bool:
    """Whether an expression is a class that derives from Target, or Target itself."""
    if not isinstance(node, ast.Name) or node.id not in imports:
        return False
    return Target in getattr(getattr(import_module(imports[node.id]), node.id, None), "__mro__", ())


def guesses(source: str) -> Iterator[str]:
    """Yield the lines of a module that test a target's name, class or equipment in place of asking it."""
    tree = ast.parse(source)
    imports = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("targets")
        for alias in node.names
    }
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    constants = {
        name.id
        for node in assigned
        if any(names_a_target(getattr(one, "value", None)) for one in ast.walk(node.value))
        for name in node.targets
        if isinstance(name, ast.Name)
    }

    def named(node: ast.AST) -> bool:
        return any(
            names_a_target(getattr(one, "value", None)) or (isinstance(one, ast.Name) and one.id in constants)
            for one in ast.walk(node)
        )

    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=right) if any(map(named, (left, *right))):
                yield ast.unparse(node)
            case ast.MatchValue() if named(node):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr=attr), args=args) if attr in TESTS_OF_TEXT and any(map(named, args)):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]) if any(
                is_target_class(kind, imports) for kind in ast.walk(kinds) if isinstance(kind, ast.expr)
            ):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[_, ast.Constant(value=str(member)), *_]) if (
                hasattr(Target, member) and not member.startswith("__")
            ):
                yield ast.unparse(node)


@pytest.mark.parametrize("package", ["toolchain", "calibration", "bench"])
def test_nobody_outside_targets_tests_the_name_or_the_class_of_a_target(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert len(modules) > 5
    found = {str(path.relative_to(ROOT)): [*guesses(path.read_text(encoding="utf-8"))] for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        'target.name == "ort-cpu"',
        'target.name in ("litert-cpu", "null")',
        'name.startswith("arm64:")',
        'word.partition(":")[0] == "ssh"',
        'KNOWN = ("ort-cpu", "arm64:")\nname.startswith(KNOWN)',
        "from targets.ssh import SshTarget\nisinstance(target, SshTarget)",
        "from targets.target import Target\nfrom targets.null import NullTarget\nisinstance(x, int | NullTarget)",
        'getattr(target, "host", "")',
        'hasattr(target, "count")',
        'match name:\n    case "browser":\n        pass',
    ],
)
def test_the_law_sees_what_it_forbids(source: str) -> None:
    assert [*guesses(source)]


@pytest.mark.parametrize("source", ['get("ort-precise")', "target.name == usual.name", 'target.cost == "instructions"'])
def test_the_law_allows_to_name_a_target_and_to_ask_it(source: str) -> None:
    assert not [*guesses(source)]


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules of `known` that a module imports, in functions too, but for type checks alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    unused = {node for check in checks for node in ast.walk(check)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node not in unused:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from {inner if inner in known else node.module} & known


def test_no_modules_of_targets_import_each_other() -> None:
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "targets").rglob("*.py")}
    graph = {name: {*imported(path, set(paths))} - {name} for name, path in paths.items()}
    assert sum(map(len, graph.values())) > 100
    TopologicalSorter(graph).prepare()


DUMMY = '''"""Target `dummy`: ONNX Runtime as it is, under another name."""

from targets.onnxruntime.cpu import OrtKernels


class DummyTarget(OrtKernels):
    """Target `dummy`: for this test."""

    name = "dummy"
'''
LAST = '        ("null", "targets.null:NullTarget"),\n'


def test_a_new_target_is_one_file_and_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "targets", tmp_path / "targets", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "targets/dummy.py").write_text(DUMMY, encoding="utf-8")
    table = tmp_path / "targets/catalog.py"
    lines = table.read_text(encoding="utf-8")
    assert lines.count(LAST) == 1
    table.write_text(lines.replace(LAST, f'{LAST}        ("dummy", "targets.dummy:DummyTarget"),\n'), encoding="utf-8")
    file = conv_net(tmp_path / "net.onnx")

    def glyphpress(*words: object) -> str:
        command = [sys.executable, "-c", "from toolchain.cli.main import main; main()", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = {row["name"]: row for row in json.loads(glyphpress("targets", "list", "--json"))["targets"]}
    assert listed["dummy"]["ok"]
    assert listed["dummy"]["formats"] == ["onnx", "ort"]
    words = ("--runs", 50, "--target", "dummy", "--target", "ort-cpu", "--memory", "--json")
    (row, _) = json.loads(glyphpress("profile", file, *words))["rows"]
    assert (row["target"], row["agreement"]["match"]) == ("dummy", True)
    assert row["percentiles_ns"]["p50"] > 0
    assert row["peak_bytes"] > file.stat().st_size
