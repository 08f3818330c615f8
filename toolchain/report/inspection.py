"""An Inspection as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from targets.artifact import Fidelity
from toolchain.checkpoint.kinds import KIND_WORDS
from toolchain.core.visible import shown
from toolchain.evaluation.compare import ComparedModels
from toolchain.formats import catalog
from toolchain.formats.inspection import Inspection
from toolchain.formats.packed import LEVEL, QUICK
from toolchain.report.terminal import LOG_WIDTH

_ROWS = 25
_NAME = 60
_VALUE = 300


def show_inspection(found: Inspection, console: Console) -> None:
    """Print what a person reads; folded only where `console` is a terminal."""
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for table in inspection_tables(found):
        console.print(table)


def inspection_tables(found: Inspection) -> Iterator[RenderableType]:
    """Yield what a person reads: a summary, the layers, the tensors by size."""
    yield _summary(found)
    if found.layers:
        yield _layers(found)
    yield _tensors(found)


def _summary(found: Inspection) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", shown(f"{found.path}  {KIND_WORDS[found.kind]}  {found.bytes:,} bytes"))
    if found.packed is not None:
        table.add_row("packed", f"{found.packed:,} bytes (zstd, level {LEVEL})")
    elif found.kind in catalog.FORMATS:
        table.add_row("packed", f"not measured for a file over {QUICK // 10**6} MB; --packed measures it")
    table.add_row("sha256", found.sha256)
    table.add_row("parameters", f"{found.parameters:,}")
    table.add_row("MACs", "unknown" if found.macs is None else f"{found.macs:,} an image")
    sizes = (f"{dtype} {size:,} bytes" for dtype, size in found.bytes_by_dtype.items())
    table.add_row("dtypes", shown(", ".join(sizes)))
    for label, lines in (("input", found.inputs), ("output", found.outputs), ("note", found.notes)):
        for line in lines:
            table.add_row(label, shown(line))
    if found.quantized:
        channels = sum(tensor.scales > 1 for tensor in found.quantized)
        table.add_row("quantized", f"{len(found.quantized)} tensors, {channels} of them per channel")
    # What stands beside weights is whoever's program saved them.
    foreign = found.kind == "state" and not str(found.metadata.get("schema", "")).startswith("glyphpress/")
    for key, value in found.metadata.items():
        table.add_row(
            shown(f"{'stored' if foreign else 'our'} {key}"),
            shown(_comparison(key, value)),
        )
    return table


def _layers(found: Inspection) -> Table:
    table = _columns("layer", "kind", "output", "parameters", "MACs", right=(3, 4))
    for layer in found.layers[:_ROWS]:
        shape = "x".join(map(str, layer.shape)) or "-"
        table.add_row(_name(layer.name), shown(layer.kind), shape, f"{layer.parameters:,}", f"{layer.macs:,}")
    _rest(table, len(found.layers))
    return table


def _tensors(found: Inspection) -> Table:
    table = _columns("tensor", "dtype", "shape", "bytes", "scales", "zero points", right=(3, 4, 5))
    for tensor in found.tensors[:_ROWS]:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        counts = [str(count) if count else "-" for count in (tensor.scales, tensor.zero_points)]
        table.add_row(_name(tensor.name), shown(tensor.dtype), shape, f"{tensor.bytes:,}", *counts)
    _rest(table, len(found.tensors))
    return table


def _columns(*columns: str, right: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position in right else "left", overflow="fold")
    return table


def _rest(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row(f"and {count - _ROWS} more (--json shows all)")


def _name(words: str) -> Text:
    # TFLite's names list every module that was fused, the last one being what is left.
    return shown(words if len(words) <= _NAME else "..." + words[3 - _NAME :])


def _comparison(key: str, value: Any) -> str:
    """Return a value of the metadata for people; a comparison with the float file, or the model before, in words."""
    try:
        if key == "fidelity":
            fidelity = Fidelity.from_dict(value)
            return f"against {fidelity.base}: {fidelity}"
        if key == "compared":
            return str(ComparedModels(**value))
    except (KeyError, TypeError, ValueError):
        pass  # none of ours
    return _short(value)


def _short(value: Any) -> str:
    words = _plain(value)
    return words if len(words) <= _VALUE else f"{words[:_VALUE]}... (--json shows all)"


def _plain(value: Any) -> str:
    """Return a value of JSON without its braces and quotes, as far as they tell nothing."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value)
