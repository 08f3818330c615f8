"""What every table and every line on a terminal has in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from targets.host.text import one_line
from toolchain.stats.decision import Outcome

DASH = "-"
"""Stands in a table where there is no figure."""

STYLE = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "yellow"}

LOG_WIDTH = 240
"""Wide enough for every column: a line that a terminal folds is better than a figure that is cut short."""


def unfold(console: Console) -> None:
    """Let the console print whole lines, however narrow the terminal is."""
    console.width = max(console.width, LOG_WIDTH)


def shown(text: str, style: str = "") -> Text:
    """Return a line, or a cell of a table, for a console: one line, never read as markup."""
    return Text(one_line(text), style)


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print lines as they are: a class such as `[` is no markup."""
    for line in lines:
        console.print(shown(line))


def plain_table(
    names: Iterable[str], *, left: Collection[str] | None = None, gap: int = 2, fold: bool = False
) -> Table:
    """Return a table without lines.

    left: the columns that are aligned to the left, None for all; the others hold figures. gap: spaces between columns.
    fold: whether a cell may take several lines where the terminal is too narrow.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in names:
        aligned_left = left is None or name in left
        table.add_column(shown(name), justify="left" if aligned_left else "right", no_wrap=not fold)
    return table


def fitted(make: Callable[[Sequence[str]], Table], less: Sequence[str], width: int | None) -> tuple[Table, list[str]]:
    """Return a table without as many of the columns `less` as `width` asks for, and a line that names them.

    make: returns the table without the columns that it is given.
    """
    table, without = make(()), list[str]()
    names = [name for name in less if name in [str(column.header) for column in table.columns]]
    while width is not None and len(without) < len(names) and table_width(table) > width:
        without = names[: len(without) + 1]
        table = make(without)
    hidden = ", ".join(name for name in names if name in without)
    return table, [f"not shown at this width: {hidden}; a wider window or a file shows them"] if hidden else []


def table_width(table: Table) -> int:
    """Return how many characters a table takes if nothing is cut off."""
    console = Console(width=1000)
    return Measurement.get(console, console.options, table).maximum


def unbroken(table: Table, *lines: str, colour: bool = False) -> str:
    """Return a table, and lines below it, as wide as they need to be: no figure is cut off in a narrow window."""
    console = Console(width=1000, highlight=False, force_terminal=colour, no_color=not colour, markup=False)
    with console.capture() as capture:
        console.print(table, width=Measurement.get(console, console.options, table).maximum)
        print_lines(console, lines)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
