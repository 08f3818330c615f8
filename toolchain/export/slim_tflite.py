"""Take out of a TFLite file what is there twice or is read by nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 16
"""Of every vector: what TFLite's schema asks for its buffers (`force_align: 16`)."""


def slim_tflite(content: bytes) -> bytes:
    """Return the file with short tensor names, and with vectors that are equal stored once.

    Per-channel zero points are 8 bytes a channel and all zero; names are whole module paths. What the file computes,
    its signature and the names of its inputs and outputs stay. Format: TFLite schema version 3, a FlatBuffer.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the library ships no types
        """Gives a vector that was written before its old place."""

        places: dict[tuple[str, bytes], int]

        def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 (the library's name)
            """Write a vector, or return where the same bytes stand."""
            payload = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
            key = (x.dtype.str, payload)
            if key not in self.places:
                self.StartVector(x.itemsize, x.size, ALIGNMENT)
                self.head -= len(payload)
                self.Bytes[self.head : self.head + len(payload)] = payload
                self.places[key] = self.EndVector()
            return self.places[key]

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.size:
            # Stored behind the FlatBuffer, as ai-edge-quantizer does with larger models: where packing moves things.
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    stored = {index for index, buffer in enumerate(model.buffers) if buffer.data is not None}
    for graph in model.subgraphs:
        _shorten(graph, stored)
    builder = SharingBuilder(len(content))
    builder.places = {}
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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
    """Return `features/conv2` for `...Sequential_features/torch.nn.modules.conv.Conv2d_conv2`."""
    parts = (part.rpartition(".")[2].partition("_")[2] for part in name.partition(";")[0].split("/"))
    return "/".join(filter(None, parts)) or name
