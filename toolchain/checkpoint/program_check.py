"""Check torch.export programs from untrusted sources before `torch.export.load` opens them.

That function can run code from the file in many ways: it unpickles weights marked `use_pickle`, custom objects, sample
inputs and the parts of older files; evaluates every size as Python; imports modules named in argument trees; turns
every name into Python source; and loads shared libraries. Ordinary files use few of these features, so everything that
is not known to be harmless is refused.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from math import prod
from pathlib import Path
from typing import Any

from calibration.idx import announced_bytes, unpacks_to_too_much
from toolchain.checkpoint.operators import computes, overloads
from toolchain.core.errors import CheckpointError

_WEIGHTS, _CONSTANTS = "data/weights", "data/constants"
_SAMPLES = "data/sample_inputs/model.pt"
_MEMBERS = re.compile(
    r"models/model\.json|archive_(format|version)|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
    rf"|{_WEIGHTS}/(weight_\d+|model_weights_config\.json)|{_CONSTANTS}/(tensor_\d+|model_constants_config\.json)"
    rf"|{re.escape(_SAMPLES)}|extra/.*"
)
_SAFE_NAME = re.compile(r"(?!.*\b__\w*__\b)[A-Za-z0-9_.+/-]{0,300}")
"""Names of layers converted from ONNX contain a slash."""
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,300}|", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,4}\d{0,6}")
_PYTHON_OPERATORS = """
add and_ eq floordiv ge getitem gt le lshift lt mod mul ne neg not_ or_ pos pow rshift sub truediv
"""
_FUNCTIONS = re.compile(r"torch\.(_?sym_\w+)|math\.(ceil|floor|sqrt|trunc|pow)")
_HIGHER_ORDER = ("cond", "map_impl", "scan", "while_loop", "wrap_with_autocast", "wrap_with_set_grad_enabled")
_SIZE_FUNCTIONS = """
Add And CeilDiv CeilToInt CleanDiv Eq Equality Float FloorDiv FloorToInt Ge GreaterThan Gt Identity IntTrueDiv
FloatTrueDiv Integer Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not Or PythonMod Rational StrictGreaterThan
StrictLessThan Symbol ToFloat TruncToFloat TruncToInt Unequality Where
"""
_NUMBER = re.compile(r"[\d.e+-]{1,40}")
_ARITHMETIC = (
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.keyword, ast.Load, ast.cmpop),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd),
)
_DTYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2}
"""Bytes of an element by torch's number of its dtype (`torch._export.serde.schema.ScalarType`)."""


class _Refused(Exception):
    """A part of the file that may run code; the message names it."""


def refuse_harmful_program(path: Path) -> None:
    """Raise CheckpointError if loading or running the file could do more than compute. The file is not loaded here."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        _check_members(reader.get_all_records(), path)
        _check_payloads(reader, _WEIGHTS, "model_weights_config.json")
        _check_payloads(reader, _CONSTANTS, "model_constants_config.json")
        _check_samples(reader)
        _check_program(json.loads(reader.get_record("models/model.json")))
    except _Refused as refused:
        raise CheckpointError(
            f"{path} holds {refused}, which an ordinary torch.export file does not and which may run code; "
            f"export it again with torch.export.save, or give --trust-pickle if you made this file"
        ) from refused
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path} is no readable torch.export program; save it again") from error


def _check_members(names: list[str], path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        all_names = archive.namelist()
    roots = {name.split("/", 1)[0] for name in all_names}
    for name in names:
        if not _MEMBERS.fullmatch(name):
            raise _Refused(f"a part named {name}")
    if len(roots) != 1 or len(set(all_names)) != len(all_names):
        raise _Refused("parts outside its folder, or two parts of the same name")


def _check_payloads(reader: Any, folder: str, config: str) -> None:
    for name, payload in json.loads(reader.get_record(f"{folder}/{config}"))["config"].items():
        _check_name(name)
        stored = payload["path_name"]
        if payload["use_pickle"] is not False:
            raise _Refused(f"pickled weights ({name})")
        if not re.fullmatch(r"(weight|tensor)_\d+", stored):
            raise _Refused(f"an object ({stored})")
        meta = payload["tensor_meta"]
        sizes = [int(size["as_int"]) for size in meta["sizes"]]
        announced, stored_bytes = (
            prod(sizes) * _DTYPE_BYTES.get(meta["dtype"], 1),
            reader.get_record_size(f"{folder}/{stored}"),
        )
        strided = all(stride["as_int"] for stride in meta["strides"])
        if min(sizes, default=0) < 0 or (strided and announced > stored_bytes) or (not stored_bytes and announced):
            raise _Refused(f"a tensor of {announced:,} bytes in a part of {stored_bytes:,} ({name})")


def _check_samples(reader: Any) -> None:
    """Refuse sample inputs that are not plain tensors: torch would unpickle them without restrictions."""
    import torch

    if not (content := reader.get_record(_SAMPLES)):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            if unpacks_to_too_much(announced_bytes(inner.infolist()), len(content)):
                raise ValueError
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # An untrusted pickle can raise any exception.
        raise _Refused("sample inputs that are not plain tensors") from error


def _check_program(program: Any) -> None:
    for name in program["range_constraints"]:
        if not _SYMBOL.fullmatch(name):
            raise _Refused(f"a size named {name}")
    _check(program)


def _check(value: Any) -> None:
    """Check every string in the program according to what torch does with it."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_name(key)
            _CHECKS.get(key, _check)(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, str):
        _check_name(value)


def _check_name(name: str) -> None:
    # Names of nodes, arguments and weights become Python source.
    if not _SAFE_NAME.fullmatch(name):
        raise _Refused(f"an invalid name ({name[:40]})")


def _check_identifiers(names: Any) -> None:
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
            raise _Refused(f"an invalid name ({str(name)[:40]})")


def _check_target(target: Any) -> None:
    match str(target).split("."):
        case ["torch", "ops", "higher_order", name]:
            harmless = name in _HIGHER_ORDER
        case ["torch", "ops", namespace, name, overload]:
            harmless = computes(f"{namespace}::{name}") and overload in overloads(f"{namespace}::{name}")
        case ["_operator", name]:
            harmless = name in _PYTHON_OPERATORS.split()
        case _:
            harmless = bool(_FUNCTIONS.fullmatch(str(target)))
    if not harmless:
        raise _Refused(f"an operator that is not known only to compute ({str(target)[:60]})")


def _check_size(text: Any) -> None:
    """Refuse a size expression unless it is arithmetic and comparisons of named sizes."""
    try:
        if not isinstance(text, str) or len(text) > 2000 or not text.isascii() or "\n" in text:
            raise ValueError
        for node in ast.walk(ast.parse(text, mode="eval").body):
            if not _is_plain_size(node):
                raise ValueError
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _Refused(f"a size that is code ({str(text)[:40]})") from error


def _is_plain_size(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in _SIZE_FUNCTIONS.split()
        case ast.Name(id=name):
            return name in _SIZE_FUNCTIONS.split() or bool(_SYMBOL.fullmatch(name))
        case ast.Constant(value=str(text)):
            return bool(_SYMBOL.fullmatch(text) or _NUMBER.fullmatch(text))
        case ast.Constant(value=value):
            return isinstance(value, (bool, int, float))
    return isinstance(node, _ARITHMETIC)


def _check_tree(text: Any) -> None:
    """Refuse an argument tree with other nodes than tuples, lists and dictionaries: torch imports their types."""
    trees = [json.loads(text)[1]]
    while trees:
        tree = trees.pop()
        context = tree["context"]
        keys = json.loads(context) if isinstance(context, str) else context
        plain = keys is None or (isinstance(keys, list) and all(isinstance(key, str) for key in keys))
        if not plain or tree["type"] not in (None, "builtins.tuple", "builtins.list", "builtins.dict"):
            raise _Refused(f"arguments of another kind ({str(tree['type'])[:60]})")
        for key in keys or ():
            _check_name(key)
        trees += tree["children_spec"]


def _refuse(value: Any) -> None:
    if value:
        raise _Refused("an object")


def _ignore(_value: Any) -> None:
    """Accept what is only ever text: where a node came from, an operator's mode, guards (removed after loading)."""


_CHECKS = {
    "name": _check_identifiers,
    "as_name": _check_identifiers,
    "forward_arg_names": _check_identifiers,
    "target": _check_target,
    "as_operator": _check_target,
    "expr_str": _check_size,
    "in_spec": _check_tree,
    "out_spec": _check_tree,
    "as_custom_obj": _refuse,
    "custom_obj": _refuse,
    "custom_obj_values": _refuse,
    "guards_code": _ignore,
    "metadata": _ignore,
    "as_string": _ignore,
    "as_strings": _ignore,
}
