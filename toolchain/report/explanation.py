"""The errors of a quantized file, layer by layer, as lines on a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from toolchain.core.quantities import percent_text
from toolchain.explain.explanation import Error, Explanation, LayerError
from toolchain.formats import catalog
from toolchain.report.terminal import DASH, plain_table, print_lines, shown, unfold


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
