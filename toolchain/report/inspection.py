"""What a model file holds, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from targets.artifact import Fidelity
from toolchain.checkpoint.kinds import KIND_NAMES
from toolchain.evaluation.compare import ComparedModels
from toolchain.formats import catalog
from toolchain.formats.inspection import LEVEL, QUICK, Inspection
from toolchain.report.terminal import LOG_WIDTH, shown

_ROWS = 25
_NAME = 60
_VALUE = 300


def show_inspection(inspection: Inspection, console: Console) -> None:
    """Print the tables; lines are folded only if `console` is a terminal."""
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for table in inspection_tables(inspection):
        console.print(table)


def inspection_tables(inspection: Inspection) -> Iterator[RenderableType]:
    """Yield a summary, the layers, and the tensors by size."""
    yield _summary(inspection)
    if inspection.layers:
        yield _layers(inspection)
    yield _tensors(inspection)


def _summary(inspection: Inspection) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", shown(f"{inspection.path}  {KIND_NAMES[inspection.kind]}  {inspection.bytes:,} bytes"))
    if inspection.packed is not None:
        table.add_row("packed", f"{inspection.packed:,} bytes (zstd, level {LEVEL})")
    elif inspection.kind in catalog.FORMATS:
        table.add_row("packed", f"not measured for a file over {QUICK // 10**6} MB; --packed measures it")
    table.add_row("sha256", inspection.sha256)
    table.add_row("parameters", f"{inspection.parameters:,}")
    table.add_row("MACs", "unknown" if inspection.macs is None else f"{inspection.macs:,} an image")
    sizes = (f"{dtype} {size:,} bytes" for dtype, size in inspection.bytes_by_dtype.items())
    table.add_row("dtypes", shown(", ".join(sizes)))
    for label, lines in (("input", inspection.inputs), ("output", inspection.outputs), ("note", inspection.notes)):
        for line in lines:
            table.add_row(label, shown(line))
    if inspection.quantized:
        channels = sum(tensor.scales > 1 for tensor in inspection.quantized)
        table.add_row("quantized", f"{len(inspection.quantized)} tensors, {channels} of them per channel")
    # Metadata beside plain weights belongs to whichever program saved them.
    foreign = inspection.kind == "state" and not str(inspection.metadata.get("schema", "")).startswith("glyphpress/")
    for key, value in inspection.metadata.items():
        table.add_row(
            shown(f"{'stored' if foreign else 'our'} {key}"),
            shown(_comparison(key, value)),
        )
    return table


def _layers(inspection: Inspection) -> Table:
    table = _columns("layer", "kind", "output", "parameters", "MACs", right=(3, 4))
    for layer in inspection.layers[:_ROWS]:
        shape = "x".join(map(str, layer.shape)) or "-"
        table.add_row(_name(layer.name), shown(layer.kind), shape, f"{layer.parameters:,}", f"{layer.macs:,}")
    _rest(table, len(inspection.layers))
    return table


def _tensors(inspection: Inspection) -> Table:
    table = _columns("tensor", "dtype", "shape", "bytes", "scales", "zero points", right=(3, 4, 5))
    for tensor in inspection.tensors[:_ROWS]:
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        counts = [str(count) if count else "-" for count in (tensor.scales, tensor.zero_points)]
        table.add_row(_name(tensor.name), shown(tensor.dtype), shape, f"{tensor.bytes:,}", *counts)
    _rest(table, len(inspection.tensors))
    return table


def _columns(*columns: str, right: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position in right else "left", overflow="fold")
    return table


def _rest(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row(f"and {count - _ROWS} more (--json shows all)")


def _name(name: str) -> Text:
    # TFLite's names list all modules that were fused; the last one is the most telling.
    return shown(name if len(name) <= _NAME else "..." + name[3 - _NAME :])


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
    text = _plain(value)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}... (--json shows all)"


def _plain(value: Any) -> str:
    """Return a JSON value as text, its outermost braces and quotes left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {member}" for key, member in value.items()) or "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value)
