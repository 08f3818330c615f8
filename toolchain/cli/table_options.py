"""The options `--markdown` and `--csv`, which write a table of measurements to files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import rich_click as click

from toolchain.cli import options, values
from toolchain.cli.options import Command


@dataclass(frozen=True)
class TableFiles:
    """The files that a command line names; None for each that it does not."""

    markdown: Path | None
    csv: Path | None

    def refuse_taken(self, *, force: bool, **others: Path | None) -> None:
        """Raise UsageProblem where two files to write have one name, or one exists without `force`.

        others: files that the command writes besides, by the names of their options.
        """
        from toolchain.core.errors import UsageProblem
        from toolchain.core.files import refuse_existing

        files: Mapping[str, Path | None] = {**others, "markdown": self.markdown, "csv": self.csv}
        named = [path for path in files.values() if path]
        if len({path.resolve() for path in named}) < len(named):
            *first, last = (f"--{name}" for name in files)
            raise UsageProblem(f"{', '.join(first)} and {last} name one file; give each a file of its own")
        for path in named:
            refuse_existing(path, force=force)

    def write(self, *, markdown: Callable[[], str], csv: Callable[[], str], force: bool) -> None:
        """Write those that are named; the texts are made only for them."""
        from toolchain.core.files import write_whole

        for path, text in ((self.markdown, markdown), (self.csv, csv)):
            if path:
                write_whole(path, text(), force=force)


def table_options(*, markdown: str, csv: str) -> Callable[[Command], Command]:
    """Add `--markdown` and `--csv`, with these helps; the command gets `tables: TableFiles`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return command(*args, tables=TableFiles(kwargs.pop("markdown"), kwargs.pop("csv")), **kwargs)

        added = (
            click.option("--markdown", type=values.OUTPUT_FILE, help=markdown),
            click.option("--csv", type=values.OUTPUT_FILE, help=csv),
        )
        return options.with_options(cast(Command, wrapped), added)

    return decorate
