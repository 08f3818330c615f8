"""A format is an object: nobody outside `formats/` and `targets/` tests which one a file has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from targets.artifact import Format
from toolchain.formats import catalog

ROOT = Path(__file__).resolve().parents[1]
NAMES = set(catalog.FORMATS)
WORDS = NAMES | {f".{name}" for name in NAMES}
TESTS_OF_TEXT = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "find"}
TABLES = {
    "toolchain/checkpoint/load.py": "what opens a file as a float model",
    "toolchain/export/__init__.py": "what makes a float file of a model",
    "toolchain/quantize/schemes.py": "what makes a quantized file of a float one",
    "toolchain/commands/snippet.py": "the package that runs it, in each language",
}
"""Modules that declare something for each format; all others ask the format."""


def names_a_format(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Constant) and inner.value in WORDS for inner in ast.walk(node))


def guesses(source: str) -> Iterator[str]:
    """Yield what in a module tests the format of a file by its name or suffix, in place of asking the format."""
    tree = ast.parse(source)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None]
    constants = {
        name.id
        for node in assigned
        if node.value is not None and names_a_format(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }

    def named(node: ast.AST) -> bool:
        inner = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        return names_a_format(node) or bool(inner & constants)

    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=right) if any(map(named, (left, *right))):
                yield ast.unparse(node)
            case ast.MatchValue() if named(node):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr=attr), args=args) if attr in TESTS_OF_TEXT and any(map(named, args)):
                yield ast.unparse(node)


def tables(source: str) -> Iterator[str]:
    """Yield the tables of a module whose keys are formats."""
    for node in ast.walk(ast.parse(source)):
        keys = node.keys if isinstance(node, ast.Dict) else []
        if any(isinstance(key, ast.Constant) and key.value in WORDS for key in keys):
            yield ast.unparse(node)


def pairs(source: str) -> Iterator[tuple[str, str]]:
    """Yield functions and classes of a module that are the same but for the format in their names."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}
    for name in defined:
        for one, other in (("onnx", "tflite"), ("Onnx", "Tflite"), ("onnx", "ort"), ("Onnx", "Ort")):
            if one in name and name.replace(one, other) in defined:
                yield name, name.replace(one, other)


def modules() -> Iterator[tuple[str, str]]:
    """Yield path and text of every module that has to ask."""
    for package in ("toolchain", "calibration", "bench"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.is_relative_to(ROOT / "toolchain/formats"):
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_nobody_else_tests_the_format_of_a_file() -> None:
    found = {path: [*guesses(source)] for path, source in modules()}
    assert len(found) > 150
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_only_the_tables_that_declare_something_for_each_format_have_formats_as_keys() -> None:
    assert {path for path, source in modules() if [*tables(source)]} == set(TABLES)


def test_no_module_does_the_same_for_two_formats_in_two_functions() -> None:
    found = {path: [*pairs(source)] for path, source in modules()}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_words_that_are_no_objects_agree_with_the_catalog() -> None:
    """`targets/` runs on boards and cannot import the catalog."""
    assert list(get_args(Format)) == list(catalog.FORMATS)
    assert [catalog.get(name).name for name in catalog.FORMATS] == list(catalog.FORMATS)


@pytest.mark.parametrize(
    "source",
    [
        'artifact.format == "onnx"',
        'kind in ("onnx", "tflite")',
        'path.suffix == ".tflite"',
        'word.endswith(".onnx")',
        'KNOWN = ("onnx", "tflite")\nkind in KNOWN',
        'FORMATS: tuple[str, ...] = ("onnx",)\nkind not in FORMATS',
        'match kind:\n    case "ort":\n        pass',
        '{row.format for row in rows} == {"onnx"}',
    ],
)
def test_the_law_sees_what_it_forbids(source: str) -> None:
    assert [*guesses(source)]


@pytest.mark.parametrize("source", ['catalog.get("onnx").suffix', 'export(model, "onnx", folder / "a.onnx")'])
def test_the_law_allows_to_name_a_format_and_to_ask_it(source: str) -> None:
    assert not [*guesses(source)]


def test_the_law_sees_tables_and_pairs() -> None:
    assert [*tables('{"onnx": f, "tflite": g}[kind]')]
    assert [*pairs("def _onnx(): pass\ndef _tflite(): pass")] == [("_onnx", "_tflite")]
    assert not [*pairs("def read_onnx(): pass\ndef write_tflite(): pass")]
