"""Check torch.export programs and TorchScript from untrusted sources before any code in them runs.

`torch.export.load` can run code from the file in many ways: it unpickles weights marked `use_pickle`, custom objects,
sample inputs and the parts of older files; evaluates every size as Python; imports modules named in argument trees;
turns every name into Python source; and loads shared libraries. Ordinary files use few of these features, so everything
that is not known to be harmless is refused.

`torch.jit.load` calls `__setstate__` and evaluates default arguments and class constants. So the text of the code is
searched first; once it is loaded, the graphs that the compiler made of it are checked as well.

In both, an operator can name a file only through a string argument. So public operators without string arguments are
allowed, and those with one only if they are listed here. Operators with a leading underscore are internal and check
their arguments less, so they must be listed too.
"""

from __future__ import annotations

import ast
import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from calibration.idx import announced_bytes, unpacks_to_too_much
from toolchain.core.errors import CheckpointError, OptionNeeded

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

_GETATTR = re.compile(r"""getattr\([^"'\\]*, "[^"'\\]*"\)""")
_OPERATOR = re.compile(r"(?<![\w.])torch\s*\.\s*([A-Za-z_]\w*)")
_NAMESPACE = re.compile(r"(?<![\w.])ops\b(?!\.(?:aten|prim)\.\w)")
_QUALIFIED = re.compile(r"(?<![\w.])ops\.(aten|prim)\.(\w+)")
_FORBIDDEN = re.compile(r"\b(?:__setstate__|save|from_file|torch\s*\.\s*classes)\b")
_QUANTIZED_CODE = re.compile(r"(?<![\w.])ops\.quantized\.|\.torch\.classes\.quantized\.")
_MODES = """
__interpolate __upsample _convolution_mode conv1d conv2d conv3d div div_ divide divide_ einsum gelu gelu_ pad fft_fft
fft_fft2 fft_fftn fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft
fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn index_reduce index_reduce_ linalg_cond linalg_eigh linalg_eigvalsh
linalg_lstsq linalg_matrix_norm linalg_norm linalg_qr linalg_svd linalg_svdvals meshgrid nanquantile pad_sequence
quantile scatter scatter_ scatter_reduce scatter_reduce_ searchsorted segment_reduce stft get_autocast_dtype device
record_stream
"""
"""Operators whose string is a mode, an equation or a device."""
_TEXT = """
Delete Float Int __contains__ __getitem__ _set_item add any capitalize center clear copy count dict endswith eq
expandtabs find format ge get gt index isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable
isspace istitle isupper items join keys le len list ljust lower lstrip lt ne ord partition percentFormat pop popitem
remove replace rfind rindex rjust rpartition rsplit rstrip setdefault slice sort sorted split splitlines startswith
strip swapcase title update upper values warn zfill
"""
"""Operators on strings, lists and dictionaries, and TorchScript's warnings."""
_INTERNAL = """
__and__ __iand__ __or__ __ior__ __xor__ __ixor__ __lshift__ __ilshift__ __rshift__ __irshift__ __not__ __is__
__isnot__ __range_length __derive_index __round_to_zero_floordiv __upsample_bilinear __upsample_nearest
_adaptive_avg_pool2d _adaptive_avg_pool3d _aminmax _assert_async _assert_scalar _assert_tensor_metadata
_batch_norm_impl_index _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short
_cdist_forward _conj _conj_physical _convolution _embedding_bag _embedding_bag_forward_only _euclidean_dist _fft_c2c
_fft_c2r _fft_r2c _functional_assert_async _functional_assert_scalar _fused_dropout _get_tracing_state _infer_size
_linalg_det _linalg_eigh _linalg_slogdet _linalg_svd _list_to_tensor _local_scalar_dense _log_softmax _masked_softmax
_native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
_native_multi_head_attention _neg_view _pack_padded_sequence _pad_circular _pad_enum _pad_packed_sequence
_pdist_forward _prelu_kernel _reshape_alias _reshape_from_tensor _safe_softmax _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _stack _tensor_to_list _thnn_fused_gru_cell
_thnn_fused_lstm_cell _to_copy _transformer_encoder_layer_fwd _trilinear _unique _unique2 _unsafe_index _unsafe_view
_unwrap_optional _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm _weight_norm_interface
"""
_SCRIPT_BLOCKS = """
AutogradZero CallFunction CallMethod ConstantChunk Constant CreateObject DictConstruct DictIndex EnumName EnumValue
Enter Exit GetAttr If IfThenElse ListConstruct ListIndex ListUnpack Loop ModuleContainerIndex NumToTensor
RaiseException Return SetAttr StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data
device dtype fork id index is_cpu is_cuda is_mps is_meta is_mkldnn is_nested is_quantized is_sparse is_sparse_csr
isinstance itemsize layout max min name nbytes rangelist requires_grad shape tolist type unchecked_cast
unchecked_unwrap_optional unchecked_implicit_cast
"""
"""TorchScript's own building blocks, in the namespace prim."""
_COMPUTING = frozenset((_MODES + _TEXT + _INTERNAL).split())
_STRUCTURE = frozenset(_SCRIPT_BLOCKS.split())


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
        raise OptionNeeded(
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
        announced = prod(sizes) * _DTYPE_BYTES.get(meta["dtype"], 1)
        held = reader.get_record_size(f"{folder}/{stored}")
        strided = all(stride["as_int"] for stride in meta["strides"])
        if min(sizes, default=0) < 0 or (strided and announced > held) or (not held and announced):
            raise _Refused(f"a tensor of {announced:,} bytes in a part of {held:,} ({name})")


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
    except Exception as error:  # an untrusted pickle can raise any exception
        raise _Refused("sample inputs that are not plain tensors") from error


def _check_program(program: Any) -> None:
    for name in program["range_constraints"]:
        if not _SYMBOL.fullmatch(name):
            raise _Refused(f"a size named {name}")
    _check(program)


def _check(value: object) -> None:
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


def _check_identifiers(names: object) -> None:
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
            raise _Refused(f"an invalid name ({str(name)[:40]})")


def _check_target(target: object) -> None:
    match str(target).split("."):
        case ["torch", "ops", "higher_order", name]:
            harmless = name in _HIGHER_ORDER
        case ["torch", "ops", namespace, name, overload]:
            operator = f"{namespace}::{name}"
            overloads = {schema.overload_name or "default" for schema in _schemas(operator)}
            harmless = _computes(operator) and overload in overloads
        case ["_operator", name]:
            harmless = name in _PYTHON_OPERATORS.split()
        case _:
            harmless = bool(_FUNCTIONS.fullmatch(str(target)))
    if not harmless:
        raise _Refused(f"an operator that is not known only to compute ({str(target)[:60]})")


def _check_size(text: object) -> None:
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


def _refuse(value: object) -> None:
    if value:
        raise _Refused("an object")


def _ignore(_value: object) -> None:
    """Accept what torch only reads as text: a node's origin, an operator's mode, guards (removed after loading)."""


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


def refuse_harmful_code(path: Path) -> None:
    """Raise CheckpointError if the text of the file's code could do more than compute. The file is not loaded here."""
    parts = _parts(path)
    if "model.json" in parts:
        raise CheckpointError(f"{path} is TorchScript from before torch 1.2; save it with a newer torch")
    for code in [content.decode("ascii", "replace") for name, content in parts.items() if name.endswith(".py")]:
        if _QUANTIZED_CODE.search(code):
            raise CheckpointError(f"{path} is quantized already; give the float model that it was made from")
        if harm := _harm(code):
            raise _refusal(path, harm)


def refuse_harmful_graphs(unit: Any, path: Path) -> None:
    """Raise CheckpointError if a function of a compilation unit has an operator that may do more than compute."""
    for function in unit.get_functions():
        for node in _nodes(function.graph):
            if not _computes(node.kind()):
                raise _refusal(path, node.kind())


def refuse_false_lengths(path: Path) -> None:
    """Raise CheckpointError if a pickle in the file states lengths beyond its end: torch would allocate that much."""
    for name, content in _parts(path).items():
        if name.endswith((".pkl", "_pkl")):
            try:
                for _ in pickletools.genops(content):
                    pass
            except (ValueError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path} is damaged or cut off ({name}); save or copy it again") from error


def _parts(path: Path) -> dict[str, bytes]:
    """Return the code and the pickles in a file, as torch's own reader sees them."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = [name for name in reader.get_all_records() if name.endswith((".py", ".pkl", "_pkl", "model.json"))]
        return {name: reader.get_record(name) for name in names}
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is no readable TorchScript; save it again") from error


def _harm(code: str) -> str | None:
    """Return the first part of TorchScript's code that could do more than compute; None where all is harmless."""
    if match := _FORBIDDEN.search(code):
        return match[0]
    remaining, previous = code, ""
    # getattr calls can be nested; each pass replaces the innermost.
    while remaining != previous:
        previous, remaining = remaining, _GETATTR.sub("_", remaining)
    if "getattr" in remaining:
        return "getattr with a computed name"
    if foreign_operator := _NAMESPACE.search(code):
        return code[foreign_operator.start() :].split("(", maxsplit=1)[0].strip()[:60]
    for name in (*(f"aten::{base}" for base in _OPERATOR.findall(code)), *map("::".join, _QUALIFIED.findall(code))):
        if _schemas(name) and not _computes(name):
            return name
    return None


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _nodes(node.g(name))


def _refusal(path: Path, harm: str) -> CheckpointError:
    return OptionNeeded(
        f"{path} is TorchScript that can do more than compute ({harm}), such as write files; "
        f"save it without that, or give --trust-pickle if you made this file"
    )


@cache
def _computes(name: str) -> bool:
    """Return whether every overload of an operator (`aten::conv2d`) only computes."""
    namespace, _, base = name.partition("::")
    if namespace == "prim":
        return base in _STRUCTURE
    if namespace not in ("aten", "prims"):
        return False
    if base in _COMPUTING:
        return True
    arguments = [argument for schema in _schemas(name) for argument in schema.arguments]
    takes_text = any("str" in str(argument.type) for argument in arguments)
    return not base.startswith("_") and bool(_schemas(name)) and not takes_text


def _schemas(name: str) -> Sequence[Any]:
    """Return the overloads of an operator, none where the installed torch does not have it."""
    import torch

    return torch._C._jit_get_schemas_for_operator(name)
