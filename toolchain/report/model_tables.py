"""Tables of one model on a terminal: what its file holds, and the error of each layer that was quantized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from targets.artifact import Fidelity
from toolchain.checkpoint.kinds import kind_name
from toolchain.core.quantities import counted, percent_text
from toolchain.evaluation.compared_models import ComparedModels
from toolchain.formats import catalog
from toolchain.formats.inspection import LEVEL, QUICK, Inspection
from toolchain.report.tables import DASH, LOG_WIDTH, plain_table, print_lines, shown, unfold

if TYPE_CHECKING:
    from toolchain.explain.explanation import Error, Explanation, LayerError

_ROWS = 25
_NAME = 60
_VALUE = 300


def show_inspection(inspection: Inspection, console: Console) -> None:
    """Print a summary, the layers, and the tensors by size; lines are folded only if `console` is a terminal."""
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(_summary(inspection))
    if inspection.layers:
        console.print(_layers(inspection))
    console.print(_tensors(inspection))


def _summary(inspection: Inspection) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", shown(f"{inspection.path}  {kind_name(inspection.kind)}  {inspection.bytes:,} bytes"))
    if inspection.packed is not None:
        table.add_row("packed", f"{inspection.packed:,} bytes (zstd, level {LEVEL})")
    elif inspection.kind in catalog.REGISTRY:
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
        table.add_row("quantized", f"{counted(len(inspection.quantized), 'tensor')}, {channels} of them per channel")
    # Metadata beside plain weights belongs to whichever program saved them.
    foreign = inspection.kind == "state" and not str(inspection.metadata.get("schema", "")).startswith("glyphpress/")
    for key, value in inspection.metadata.items():
        table.add_row(shown(f"{'stored' if foreign else 'our'} {key}"), shown(_metadata_text(key, value)))
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


def _metadata_text(key: str, value: Any) -> str:
    """Return a value of the metadata for people; a comparison with the float file, or the model before, in words."""
    try:
        if key == "fidelity":
            fidelity = Fidelity.from_dict(value)
            return f"against {fidelity.base}: {fidelity}"
        if key == "compared":
            return str(ComparedModels(**value))
    except (KeyError, TypeError, ValueError):
        pass  # Another program's value may have the same key.
    text = _plain(value)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}... (--json shows all)"


def _plain(value: Any) -> str:
    """Return a JSON value as text, its outermost braces and quotes left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {member}" for key, member in value.items()) or "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value)


def show_explanation(explanation: Explanation, console: Console) -> None:
    """Print the table of layers in execution order, and which operators run in float and why."""
    unfold(console)
    header = [
        f"base       {explanation.base.path.name}",
        f"candidate  {explanation.candidate.path.name}",
        f"images     {explanation.images.origin}",
        "",
    ]
    print_lines(console, header)
    console.print(_layer_table(explanation))
    arithmetic = catalog.get(explanation.candidate.format).arithmetic
    print_lines(console, ["", *_worst_layer(explanation), *_float_reasons(explanation), arithmetic])


def _layer_table(explanation: Explanation) -> Table:
    texts, figures = ("layer", "operator", "weights", "values"), ("SQNR", "alone", "cosine", "saturated")
    table = plain_table((*texts, *figures, "runs in"), left=(*texts, "runs in"))
    for row in explanation.layers:
        names = (row.layer, row.operator, row.weights, row.values)
        whole, alone = row.whole, row.alone
        cosine = DASH if whole.cosine is None else f"{whole.cosine:.5f}"
        saturated = DASH if whole.saturated is None else percent_text(whole.saturated)
        table.add_row(*map(shown, names), _decibels(whole), _decibels(alone), cosine, saturated, shown(_kernel(row)))
    return table


def _decibels(error: Error) -> str:
    if not error.noise:
        return "exact"
    return DASH if error.sqnr_db is None else f"{error.sqnr_db:.1f} dB"


def _kernel(row: LayerError) -> str:
    if row.kernel is None:
        return DASH
    return f"{'integers' if row.kernel.integer else 'float'} ({row.kernel.operator})"


def _worst_layer(explanation: Explanation) -> list[str]:
    """Return a line on the layer that adds the most error itself, none if no layer adds any."""
    return [
        f"to blame   {row.layer}: {_decibels(row.alone)} by itself, the least of all layers"
        for row in explanation.blame()[:1]
    ]


def _float_reasons(explanation: Explanation) -> list[str]:
    """Return a line for each reason why layers or other operators run in float."""
    reasons: dict[str, list[str]] = {}
    for row in explanation.layers:
        if row.kernel and row.kernel.reason:
            reasons.setdefault(row.kernel.reason, []).append(row.layer)
    lines = [f"{', '.join(layers)}: {reason}" for reason, layers in reasons.items()]
    others = Counter((operator.operator, operator.reason) for operator in explanation.others)
    lines += [
        f"{operator}{f' ({count} times)' if count > 1 else ''}: float, since {reason}"
        for (operator, reason), count in others.items()
    ]
    return lines
