"""Tables and lines for a terminal and for GitHub-flavoured Markdown, which no class name can break.

`[`, `|`, a backtick and `<` are handwritten characters too. In Markdown (https://github.github.com/gfm) a pipe is
escaped in a table even within a code span. `@`, `#` and `$` cannot be escaped on GitHub (mentions, issues, formulas);
within an element of their own they stay characters.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from targets.host.text import one_line, visible
from toolchain.evaluation.timings import LatencyRatio
from toolchain.formats.inspection import LEVEL, QUICK
from toolchain.stats.decision import Outcome

DASH = "-"
"""Stands in a table where there is no figure."""

STYLE = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "yellow"}

LOG_WIDTH = 240
"""Wide enough for every column: a line that a terminal folds is better than a figure that is cut short."""


def packed_remark(sizes: Iterable[int | None], ask: str) -> str:
    """Return the line that explains the packed sizes of a table; ask: how to get those that were not measured."""
    measured = {size is not None for size in sizes}
    if measured == {True}:
        return f"packed: by zstd, level {LEVEL}"
    how = f"packed: by zstd, level {LEVEL}; not measured" if True in measured else "packed: not measured"
    return f"{how} for files over {QUICK // 10**6} MB, which takes long; {ask}"


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


def unbroken(table: Table, *lines: str, colour: bool = False) -> str:
    """Return a table, and lines below it, as wide as they need to be: no figure is cut off in a narrow window."""
    console = Console(width=1000, highlight=False, force_terminal=colour, no_color=not colour, markup=False)
    with console.capture() as capture:
        console.print(table, width=_width(table))
        print_lines(console, lines)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _width(table: Table) -> int:
    """Return how many characters a table takes if nothing is cut off."""
    console = Console(width=1000)
    return Measurement.get(console, console.options, table).maximum


@dataclass(frozen=True)
class Columns:
    """A table of figures with remarks below it, for a terminal and as Markdown.

    cells: by heading, one for each row; a column that only holds dashes is left out. left: the headings of the columns
    that are aligned to the left. dropped_first: the columns that a narrow terminal leaves out, the first of them first.
    below: the columns of long texts, which it writes as lines below the table before it leaves out any.
    """

    cells: Mapping[str, Sequence[str]]
    remarks: Sequence[str]
    left: Collection[str]
    dropped_first: Sequence[str]
    below: Sequence[str] = ()

    def text(self, *, width: int | None = None, colour: bool = False) -> str:
        """Return the table for a terminal. width: of the terminal, None for no limit."""
        optional = [heading for heading in self.dropped_first if heading in self.filled()]
        dropped, table = 0, self._table(())
        below: list[str] = []
        if width is not None and _width(table) > width:
            below = [heading for heading in self.below if heading in self.filled()]
            table = self._table(below)
        while width is not None and dropped < len(optional) and _width(table) > width:
            dropped += 1
            table = self._table([*below, *optional[:dropped]])
        names = ", ".join(optional[:dropped])
        hidden = [f"not shown at this width: {names}; a wider window or a file shows them"] if names else []
        return unbroken(table, *self._lines(below), *hidden, *self.remarks, colour=colour)

    def markdown(self) -> str:
        """Return the table, with every column, and the remarks as a list."""
        filled = self.filled()
        right = [index for index, heading in enumerate(filled) if heading not in self.left]
        rows = ([markdown_text(cell) for cell in row] for row in zip(*filled.values(), strict=True))
        table = markdown_table(list(filled), rows, right=right)
        return "\n".join([table, "", *(f"- {markdown_text(line)}" for line in self.remarks)])

    def filled(self) -> dict[str, Sequence[str]]:
        """Return the columns that hold more than dashes."""
        return {heading: column for heading, column in self.cells.items() if set(column) != {DASH}}

    def _lines(self, headings: Sequence[str]) -> list[str]:
        """Return the texts of these columns, each once, with the rows that it is of: by their columns on the left."""
        lines: dict[str, list[str]] = {}
        named = [cells for heading, cells in self.filled().items() if heading in self.left and heading not in headings]
        for heading in headings:
            for text, *names in zip(self.cells[heading], *named, strict=True):
                if text != DASH:
                    lines.setdefault(f"{heading}: {text}", []).append(" on ".join(names))
        return [f"{text} ({', '.join(names)})" for text, names in lines.items()]

    def _table(self, without: Collection[str]) -> Table:
        columns = {heading: column for heading, column in self.filled().items() if heading not in without}
        table = plain_table(columns, left=self.left)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*map(shown, row))
        return table


def spreadsheet_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{visible(text)}" if text.startswith(tuple("=+-@\t\r")) else visible(text)


def spreadsheet_csv(lines: Sequence[Mapping[str, object]]) -> str:
    """Return lines of equal keys as CSV under a heading; texts as `spreadsheet_text` gives them, None as nothing."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(
            {key: spreadsheet_text(value) if isinstance(value, str) else value for key, value in line.items()}
        )
    return stream.getvalue()


def ratio_text(ratio: LatencyRatio) -> str:
    """Return a ratio for people: `0.68 [0.66, 0.71]`, without the interval where there were too few rounds."""
    interval = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.ratio:.2f}{interval}"


_MARKS = {mark: f"\\{mark}" for mark in "\\`*_[]~|!"}
_ELEMENTS = {mark: f"<span>{mark}</span>" for mark in "@#$"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HTML = str.maketrans(_ENTITIES)
_TEXT = str.maketrans(_MARKS | _ELEMENTS | _ENTITIES)


def markdown_text(plain: str) -> str:
    """Return plain text escaped, on one line, so that Markdown shows it as it is, also in a table."""
    return visible(plain).translate(_TEXT)


def code_span(plain: str) -> str:
    """Return plain text as a code span; an empty one becomes a space."""
    plain = visible(plain) or " "
    if "\\" in plain and "|" in plain:
        # A code span in a table cannot hold both.
        return markdown_text(plain)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    # Markdown removes one space on each side again; with it, a backtick may be at the edge.
    inner = f" {plain} " if plain.startswith("`") or plain.endswith("`") else plain
    return f"{fence}{inner}{fence}"


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown already. right: indices of the columns to align right."""
    rule = ["---:" if column in right else "---" for column in range(len(names))]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (names, rule, *rows))


def _cell(markdown: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", markdown)


def details(summary: str, body: str) -> str:
    """Return what opens when it is asked for. summary: plain words; body: Markdown already."""
    return f"<details>\n<summary>{visible(summary).translate(_HTML)}</summary>\n\n{body}\n\n</details>"
