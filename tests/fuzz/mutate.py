"""Ways to damage a file: its bytes, or one value of what it holds, so that the damage lies behind the first check."""

from __future__ import annotations

import copy
import io
import json
import struct
import warnings
import zipfile
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np

WEIRD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -(2**63), 1e308, 1e-320, 0.5, float("nan"), float("inf"), -0.0,
    "", "x", "0", "a" * 5000, "\x1b[31mred", "é", "\ud800", "\x00", "../../etc/passwd", "nan", "1e999", "%s%n", "\n",
    [], {}, [[]], [None], [0], {"a": 1}, ["a", "a"], [1] * 50,
]  # fmt: skip
"""Values that stand where others are expected."""
_TOML = [
    "true", "-1", "0", "1e400", "nan", "inf", "''", "'x'", "[]", "{}", "[1,2]", "'\\u0000'", '"\\u001b[31m"',
    "1979-05-27", "9223372036854775807", "99999999999999999999999", "[[['a']]]", "'100%'", "'-1pp'", "'1e999pp'",
    "'nan%'", "0.3", "'a'", "1e-320", "'0pp'", "'" + "9" * 400 + "'", "{a=1}",
]  # fmt: skip
_EXTREME = [-1, 0, 1, 3, 2**31, 2**40, 2**62]
_OPERATORS = [
    "Loop", "If", "Scan", "ConstantOfShape", "Foo", "", "Conv", "Reshape", "Tile", "Expand", "RandomUniform", "Gather",
    "Resize", "DequantizeLinear", "QuantizeLinear", "MatMul",
]  # fmt: skip


def damaged(random: Random, content: bytes) -> bytes:
    """Change, insert, move or cut off a few bytes; those near the beginning more often."""
    data = bytearray(content or b"\0")
    for _ in range(random.choice([1, 1, 1, 2, 4, 8, 32])):
        size = len(data)
        at = random.randrange(size) if random.random() < 0.6 else random.randrange(min(size, 256))
        way = random.randrange(8)
        if way == 0:
            data[at] ^= 1 << random.randrange(8)
        elif way == 1:
            data[at] = random.randrange(256)
        elif way == 2:
            data[at : at + 4] = random.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0"])
        elif way == 3:
            del data[at : at + random.choice([1, 2, 4, 16, 1000])]
        elif way == 4:
            data[at:at] = random.randbytes(random.choice([1, 2, 4, 16]))
        elif way == 5:
            source, length = random.randrange(size), random.choice([4, 8, 64])
            data[at : at + length] = data[source : source + length]
        elif way == 6:
            data[at : at + 8] = struct.pack("<q", random.choice([-1, 2**62, 2**31, 2**40]))
        elif random.random() < 0.25:
            del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def damaged_json(random: Random, text: str) -> bytes:
    """Change, add, double or take away up to three values of a JSON text; now and then its bytes."""
    if random.random() < 0.15:
        return damaged(random, text.encode())
    return json.dumps(_value_changed(random, json.loads(text))).encode()


def _value_changed(random: Random, values: Any) -> Any:
    values = copy.deepcopy(values)
    places = list(_places(values))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        *way, key = random.choice(places[1:] or places) or [None]
        if key is None:
            return random.choice(WEIRD)
        try:
            holder = values
            for step in way:
                holder = holder[step]
            act = random.randrange(5)
            if act == 0:
                del holder[key]
            elif act == 1 and isinstance(holder, dict):
                holder[random.choice(["x", "", "\ud800", "schema"])] = copy.deepcopy(random.choice(WEIRD))
            elif act == 2 and isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            else:
                holder[key] = copy.deepcopy(random.choice(WEIRD))
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
    return values


def _places(values: Any, way: tuple[Any, ...] = ()) -> Any:
    yield way
    if isinstance(values, (dict, list)):
        for key in list(values) if isinstance(values, dict) else range(min(len(values), 6)):
            yield from _places(values[key], (*way, key))


def damaged_toml(random: Random, text: str) -> bytes:
    """Change, double, add or take away a line or two of a TOML text; now and then its bytes."""
    if random.random() < 0.25:
        return damaged(random, text.encode())
    lines = text.splitlines()
    for _ in range(random.choice([1, 1, 2])):
        keys = [at for at, line in enumerate(lines) if "=" in line and not line.lstrip().startswith("#")]
        if not keys:
            break
        at, value = random.choice(keys), random.choice(_TOML)
        act = random.randrange(6)
        if act == 0:
            del lines[at]
        elif act == 1:
            lines.insert(at, lines[at])
        elif act == 2:
            name = random.choice(["x", "name", "kind", "max", '""'])
            lines.insert(at, f"{name} = {value}")
        else:
            lines[at] = f"{lines[at].split('=')[0].strip()} = {value}"
    return ("\n".join(lines) + "\n").encode()


def damaged_zip(random: Random, content: bytes, *, preferred: tuple[str, ...]) -> bytes:
    """Damage one member of an archive, more often one whose name ends in `preferred`; its checksum is right again."""
    if random.random() < 0.25:
        return damaged(random, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    likely = [name for name in members if name.endswith(preferred)]
    hit = random.choice(likely if likely and random.random() < 0.7 else [name for name in members if members[name]])
    is_json = hit.endswith(".json") and random.random() < 0.7
    members[hit] = damaged_json(random, members[hit].decode()) if is_json else damaged(random, members[hit])
    if random.random() < 0.08:
        del members[hit]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def damaged_npz(random: Random, content: bytes) -> bytes:
    """Change, cut, reshape, retype or take away arrays of an .npz, and values of the JSON in it."""
    if random.random() < 0.2:
        return damaged(random, content)
    arrays: dict[str, Any] = dict(np.load(io.BytesIO(content)))
    for _ in range(random.choice([1, 1, 2, 3])):
        key = random.choice(list(arrays))
        value, act = arrays[key], random.randrange(10)
        if act == 0 and len(arrays) > 1:
            del arrays[key]
        elif act == 1:
            with np.errstate(all="ignore"):
                arrays[key] = _retyped(random, value)
        elif act == 2 and value.ndim:
            arrays[key] = value[: len(value) // 2]
        elif act == 3:
            shape = random.choice([(), (0,), (1,), (2, 2), (0, 10), (599, 11), (1, 599, 10)])
            arrays[key] = np.zeros(shape, value.dtype)
        elif act == 4 and value.dtype.kind in "fiu" and value.size:
            arrays[key] = value.copy()
            numbers = [np.nan, np.inf, -np.inf, 1e38] if value.dtype.kind == "f" else [0, 100, 127]
            arrays[key].reshape(-1)[random.randrange(value.size)] = random.choice(numbers)
        elif act == 5:
            arrays["x"] = np.zeros(3)
        elif act == 6:
            arrays[key] = np.array(random.choice(["", "{", "null", "[]"]))
        elif "meta" in arrays and arrays["meta"].dtype.kind == "U" and str(arrays["meta"]).startswith("{"):
            with suppress(ValueError):  # damaged already
                arrays["meta"] = np.array(damaged_json(random, str(arrays["meta"])).decode(errors="replace"))
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _retyped(random: Random, value: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a complex number loses a part, damaged a second time
            return value.astype(random.choice(["f2", "f8", "i1", "i8", "u1", "?", "c8", "S4", "U4"]))
    except ValueError:  # a text that is no number
        return value


def damaged_onnx(random: Random, content: bytes) -> bytes:
    """Change one to three of a graph's operators, edges, shapes, types, weights, opset and metadata, or its bytes."""
    import onnx

    if random.random() < 0.35:
        return damaged(random, content[:200]) + content[200:] if random.random() < 0.5 else damaged(random, content)
    model = onnx.load_model_from_string(content)
    for _ in range(random.choice([1, 1, 2, 3])):
        try:
            random.choice([_node_changed, _node_changed, _weight_changed, _graph_changed, _model_changed])(
                random, model
            )
        except (IndexError, ValueError, TypeError):  # an earlier change took it away, or protobuf cannot hold it
            continue
    return bytes(model.SerializeToString())


def _node_changed(random: Random, model: Any) -> None:
    graph = model.graph
    node, way = random.choice(list(graph.node)), random.randrange(4)
    if way == 0:
        node.op_type = random.choice(_OPERATORS)
    elif way == 1 and node.input:
        names = ["", "nope", node.output[0], graph.input[0].name]
        node.input[random.randrange(len(node.input))] = random.choice(names)
    elif way == 2 and node.attribute:
        attribute = random.choice(list(node.attribute))
        if attribute.ints:
            attribute.ints[random.randrange(len(attribute.ints))] = random.choice([*_EXTREME, 100])
        else:
            attribute.i = random.choice(_EXTREME)
    elif way == 3:
        graph.node.remove(node)


def _weight_changed(random: Random, model: Any) -> None:
    tensor, way = random.choice(list(model.graph.initializer)), random.randrange(4)
    if way == 0:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_EXTREME)
    elif way == 1:
        tensor.data_type = random.randrange(25)
    elif way == 2:
        tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = (
            "location",
            random.choice(["/etc/hosts", "../../../etc/hosts", "x.bin", "/dev/zero", ""]),
        )
        tensor.ClearField("raw_data")


def _graph_changed(random: Random, model: Any) -> None:
    graph, way = model.graph, random.randrange(5)
    tensor = graph.input[0].type.tensor_type
    if way == 0:
        random.choice(list(tensor.shape.dim)).dim_value = random.choice([0, -1, 2**40, 3, 7])
    elif way == 1:
        tensor.elem_type = random.randrange(25)
    elif way == 2:
        graph.output[0].name = random.choice(["", "nope"])
    elif way == 3:
        graph.input.add().CopyFrom(graph.input[0])
    else:
        del graph.output[:]


def _model_changed(random: Random, model: Any) -> None:
    way = random.randrange(3)
    if way == 0:
        model.opset_import[0].version = random.choice([0, -1, 1, 6, 8, 999, 2**40])
    elif way == 1:
        model.ir_version = random.choice([0, -1, 1, 99, 2**40])
    elif model.metadata_props:
        entry = random.choice(list(model.metadata_props))
        text = damaged_json(random, entry.value) if entry.value.startswith("{") else b"\x1b[31m"
        entry.value = random.choice([text.decode(errors="replace"), "", "{", "null", "[]"])


_CHANGES = [_node_changed, _node_changed, _weight_changed, _graph_changed, _model_changed]
