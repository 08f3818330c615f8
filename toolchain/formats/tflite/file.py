"""Read a TFLite file, remove what is stored twice or never read, and write it."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 16
"""Of the bytes in a buffer: TFLite's schema has `force_align: 16`; other vectors are aligned to their type."""
_CLASS = re.compile(r"(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)")
"""A module's class, then its name; `conv1.20` is a name with a number after it."""
NOTES = (b"min_runtime_version", b"keep_stablehlo_constant")
"""Metadata of the converter; no runtime reads it."""


def mapped(path: Path) -> mmap:
    """Return the content of a file as a memory map: only what is read takes memory."""
    with path.open("rb") as stream:
        return mmap(stream.fileno(), 0, access=ACCESS_READ)


def parsed(content: bytes | mmap) -> Any:
    """Return the model of a file (`schema_py_generated.ModelT`); its buffers are views of `content`."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


@cache
def enum_names(enum: str) -> dict[int, str]:
    """Return value -> name of an enumeration of the schema, such as `TensorType`."""
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(getattr(schema, enum)).items() if isinstance(number, int)}


def operator_kinds(model: Any) -> list[str]:
    """Return the kind of each of a model's operator codes, CUSTOM for those that TFLite does not define."""
    names = enum_names("BuiltinOperator")
    return [names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM") for code in model.operatorCodes]


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, empty where it has none."""
    return tuple(map(int, tensor.shape)) if tensor.shape is not None else ()


def slim_tflite(content: bytes | mmap) -> memoryview:
    """Return the file with short tensor names, without the converter's notes, and with equal vectors stored once.

    The zero points of each channel take 8 bytes and are all zero; names are whole module paths. What the file computes,
    its signature and the names of its inputs and outputs stay. Format: TFLite schema version 3, a FlatBuffer.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the library ships no types
        """Writes each vector once."""

        offsets: dict[tuple[str, int, bytes], int]

        def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 (the library's name)
            """Write a vector, or return the offset of an equal one."""
            payload = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
            key = (x.dtype.str, len(payload), sha256(payload).digest())
            if key not in self.offsets:
                self.StartVector(x.itemsize, x.size, ALIGNMENT if x.itemsize == 1 else x.itemsize)
                self.head -= len(payload)
                self.Bytes[self.head : self.head + len(payload)] = payload
                self.offsets[key] = self.EndVector()
            return self.offsets[key]

    model = unpacked(content)
    for code in model.operatorCodes:
        # Readers of schemas before 3a read only this, where 0 is ADD; larger codes are 127 (PLACEHOLDER_FOR_GREATER).
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    model.description = None
    model.metadata = [entry for entry in model.metadata or () if entry.name not in NOTES] or None
    _drop_unread(model)
    stored = {index for index, buffer in enumerate(model.buffers) if buffer.data is not None}
    for graph in model.subgraphs:
        _shorten(graph, stored)
        _share_scales(graph)
    builder = SharingBuilder(len(content) + len(content) // 64)
    builder.offsets = {}
    return _finished(builder, model)


def unpacked(content: bytes | mmap) -> Any:
    """Return the model of a file (`schema_py_generated.ModelT`) with the data of every buffer in its place."""
    model = parsed(content)
    for buffer in model.buffers:
        if buffer.size:
            # Stored behind the FlatBuffer, as litert-quantizer does with larger models; packing changes the offsets.
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any, size: int) -> bytes:
    """Return the file of a model. size: about how many bytes it has; the builder doubles it where it must."""
    import flatbuffers

    return bytes(_finished(flatbuffers.Builder(size), model))


def _finished(builder: Any, model: Any) -> memoryview:
    builder.Finish(model.Pack(builder), b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


def _drop_unread(model: Any) -> None:
    """Remove the buffers that nothing refers to, and the ranges that quantizers store."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    referring = [*tensors, *(model.metadata or ())]
    # The schema requires that the first buffer is empty: it is that of tensors without data.
    used = sorted({0, *(table.buffer for table in referring)})
    new_index = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for table in referring:
        table.buffer = new_index[table.buffer]
    model.metadataBuffer = None  # lists the buffers of metadata once more
    for tensor in tensors:
        if tensor.quantization is not None:
            tensor.quantization.min = tensor.quantization.max = None


class _Once:
    """A table of the schema that is written once, however many others refer to it."""

    def __init__(self, table: Any) -> None:
        """Take the table."""
        self._table, self._offset = table, 0

    def Pack(self, builder: Any) -> int:  # noqa: N802 (the library's name)
        """Write the table, or return its offset."""
        self._offset = self._offset or int(self._table.Pack(builder))
        return self._offset


def _share_scales(graph: Any) -> None:
    """Let tensors with equal quantization, as before and after a pad, refer to one table."""
    tables: dict[Any, _Once] = {}
    for tensor in graph.tensors:
        scales = tensor.quantization
        if scales is not None and scales.scale is not None and scales.details is None:
            key = (scales.scale.tobytes(), np.asarray(scales.zeroPoint).tobytes(), scales.quantizedDimension)
            tensor.quantization = tables.setdefault(key, _Once(scales))


def _shorten(graph: Any, stored: set[int]) -> None:
    ends = {*graph.inputs, *graph.outputs}
    used = {graph.tensors[index].name for index in ends}
    for index, tensor in enumerate(graph.tensors):
        if index in ends:
            continue
        # A fused operator has the names of all its modules, the last one first; a weight belongs to the first module.
        modules = [part for part in tensor.name.decode().split(";") if "/" in part] or [tensor.name.decode()]
        name = short = _short(modules[-1 if tensor.buffer in stored else 0])
        if name.encode() in used:
            name = f"{short}.{index}"
        tensor.name = name.encode()
        used.add(tensor.name)


def _short(name: str) -> str:
    """Return `features/conv2` for `...Sequential_features/torch.nn.modules.conv.Conv2d_conv2;...`."""
    parts = name.partition(";")[0].split("/")
    return "/".join(filter(None, map(_module_name, parts))) or name


def _module_name(part: str) -> str:
    path = _CLASS.fullmatch(part)
    return path[1].partition("_")[2] if path else part
