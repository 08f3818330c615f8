"""Take out of a TFLite file what is there twice or is read by nobody."""

from __future__ import annotations

import re
from hashlib import sha256
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.formats.tflite.layers import parsed

ALIGNMENT = 16
"""Of the bytes of a buffer: what TFLite's schema asks for (`force_align: 16`); others lie where their numbers do."""
_CLASS = re.compile(r"(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)")
"""A module's class, then its name; `conv1.20` is a name that was given a number."""
NOTES = (b"min_runtime_version", b"keep_stablehlo_constant")
"""Metadata of the converter; no runtime reads it."""


def slim_tflite(content: bytes | mmap) -> memoryview:
    """Return the file with short tensor names, without the converter's notes, and with equal vectors stored once.

    Per-channel zero points are 8 bytes a channel and all zero; names are whole module paths. What the file computes,
    its signature and the names of its inputs and outputs stay. Format: TFLite schema version 3, a FlatBuffer.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the library ships no types
        """Gives a vector that was written before its old place."""

        places: dict[tuple[str, int, bytes], int]

        def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 (the library's name)
            """Write a vector, or return where the same bytes stand."""
            payload = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
            key = (x.dtype.str, len(payload), sha256(payload).digest())
            if key not in self.places:
                self.StartVector(x.itemsize, x.size, ALIGNMENT if x.itemsize == 1 else x.itemsize)
                self.head -= len(payload)
                self.Bytes[self.head : self.head + len(payload)] = payload
                self.places[key] = self.EndVector()
            return self.places[key]

    model = unpacked(content)
    for code in model.operatorCodes:
        # Readers of before schema 3a look here alone, and 0 is ADD; what does not fit is 127 (PLACEHOLDER_FOR_GREATER).
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    model.description = None
    model.metadata = [entry for entry in model.metadata or () if entry.name not in NOTES] or None
    _drop_unread(model)
    stored = {index for index, buffer in enumerate(model.buffers) if buffer.data is not None}
    for graph in model.subgraphs:
        _shorten(graph, stored)
        _share_scales(graph)
    # A builder doubles its room where it runs out of it.
    builder = SharingBuilder(len(content) + len(content) // 64)
    builder.places = {}
    builder.Finish(model.Pack(builder), b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


def unpacked(content: bytes | mmap) -> Any:
    """Return the model of a file (`schema_py_generated.ModelT`) with the data of every buffer in its place."""
    model = parsed(content)
    for buffer in model.buffers:
        if buffer.size:
            # Stored behind the FlatBuffer, as litert-quantizer does with larger models: where packing moves things.
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any, size: int) -> bytes:
    """Return the file of a model. size: about how many bytes it has; a builder doubles its room where that is less."""
    import flatbuffers

    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _drop_unread(model: Any) -> None:
    """Take out the buffers that nothing refers to, and what quantizers noted of ranges."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    referring = [*tensors, *(model.metadata or ())]
    # The first buffer is empty by the schema's law: it stands for tensors without data.
    used = sorted({0, *(one.buffer for one in referring)})
    place = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[index] for index in used]
    for one in referring:
        one.buffer = place[one.buffer]
    model.metadataBuffer = None  # lists the buffers of metadata once more
    for tensor in tensors:
        if tensor.quantization is not None:
            tensor.quantization.min = tensor.quantization.max = None


class _Once:
    """A table of the schema that is written once, for all that hold it."""

    def __init__(self, table: Any) -> None:
        """Take the table."""
        self._table, self._place = table, 0

    def Pack(self, builder: Any) -> int:  # noqa: N802 (the library's name)
        """Write the table, or return where it stands."""
        self._place = self._place or int(self._table.Pack(builder))
        return self._place


def _share_scales(graph: Any) -> None:
    """Let tensors that are quantized alike, as before and after a pad, refer to one table."""
    tables: dict[Any, _Once] = {}
    for tensor in graph.tensors:
        scales = tensor.quantization
        if scales is not None and scales.scale is not None and scales.details is None:
            key = (scales.scale.tobytes(), np.asarray(scales.zeroPoint).tobytes(), scales.quantizedDimension)
            tensor.quantization = tables.setdefault(key, _Once(scales))


def _shorten(graph: Any, stored: set[int]) -> None:
    kept = {*graph.inputs, *graph.outputs}
    taken = {graph.tensors[index].name for index in kept}
    for index, tensor in enumerate(graph.tensors):
        if index in kept:
            continue
        # What several modules were fused into names them all, the last one first: a weight belongs to the first.
        modules = [part for part in tensor.name.decode().split(";") if "/" in part] or [tensor.name.decode()]
        name = short = _short(modules[-1 if tensor.buffer in stored else 0])
        if name.encode() in taken:
            name = f"{short}.{index}"
        tensor.name = name.encode()
        taken.add(tensor.name)


def _short(name: str) -> str:
    """Return `features/conv2` for `...Sequential_features/torch.nn.modules.conv.Conv2d_conv2;...`, or a short name."""
    parts = name.partition(";")[0].split("/")
    return "/".join(filter(None, map(_module_name, parts))) or name


def _module_name(part: str) -> str:
    path = _CLASS.fullmatch(part)
    return path[1].partition("_")[2] if path else part
