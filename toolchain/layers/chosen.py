"""Layers that somebody named."""

from __future__ import annotations

from collections.abc import Collection

from targets.errors import nearest
from toolchain.errors import UsageProblem
from toolchain.layers.graph import Graph, Layer


def chosen(graph: Graph, names: Collection[str], file: str) -> tuple[Layer, ...]:
    """Return the layers of these names, in the order of execution.

    Raises UsageProblem for a name that the file has not, with the nearest ones, and where they are all of its layers.
    """
    known = [layer.name for layer in graph.layers]
    for name in names:
        if name not in known:
            near = nearest(name, known, f"`glyphpress inspect {file}` lists them")
            raise UsageProblem(f"{file} has no layer '{name}' to keep float; {near}")
    found = tuple(layer for layer in graph.layers if layer.name in names)
    if found and len(found) == len(known):
        raise UsageProblem(f"{file}: every layer is to be kept float, so there is nothing to quantize; keep fewer")
    return found
