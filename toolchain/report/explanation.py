"""An explanation as lines on a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from toolchain.core.quantities import percent_text
from toolchain.core.visible import shown
from toolchain.explain.error import Error
from toolchain.explain.explanation import Explanation, LayerError
from toolchain.formats import catalog
from toolchain.report.terminal import DASH, plain_table, unfold


def show_explanation(found: Explanation, console: Console) -> None:
    """Print the table of layers in execution order, and what runs in float and why."""
    unfold(console)
    lines = [
        f"base       {found.base.path.name}",
        f"candidate  {found.candidate.path.name}",
        f"images     {found.images.origin}",
        "",
    ]
    for line in lines:
        console.print(shown(line))
    console.print(_layer_table(found))
    for line in ["", *_told(found), catalog.get(found.candidate.format).arithmetic]:
        console.print(shown(line))


def _layer_table(found: Explanation) -> Table:
    texts, figures = ("layer", "operator", "weights", "values"), ("SQNR", "alone", "cosine", "saturated")
    table = plain_table((*texts, *figures, "runs in"), left=(*texts, "runs in"))
    for row in found.layers:
        words = (row.layer, row.operator, row.weights, row.values)
        whole, alone = row.whole, row.alone
        cosine = DASH if whole.cosine is None else f"{whole.cosine:.5f}"
        saturated = DASH if whole.saturated is None else percent_text(whole.saturated)
        table.add_row(*map(shown, words), _decibels(whole), _decibels(alone), cosine, saturated, shown(_kernel(row)))
    return table


def _decibels(error: Error) -> str:
    if not error.noise:
        return "exact"
    return DASH if error.sqnr_db is None else f"{error.sqnr_db:.1f} dB"


def _kernel(row: LayerError) -> str:
    if row.kernel is None:
        return DASH
    return f"{'integers' if row.kernel.integer else 'float'} ({row.kernel.operator})"


def _told(found: Explanation) -> list[str]:
    """Return the lines about the layer to blame, and a line for each reason to run in float."""
    worst = found.blame()[:1]
    lines = [f"to blame   {one.layer}: {_decibels(one.alone)} by itself, the least of all layers" for one in worst]
    reasons: dict[str, list[str]] = {}
    for row in found.layers:
        if row.kernel and row.kernel.reason:
            reasons.setdefault(row.kernel.reason, []).append(row.layer)
    lines += [f"{', '.join(layers)}: {reason}" for reason, layers in reasons.items()]
    others = Counter((one.operator, one.reason) for one in found.others)
    lines += [
        f"{operator}{f' ({count} times)' if count > 1 else ''}: float, since {reason}"
        for (operator, reason), count in others.items()
    ]
    return lines
