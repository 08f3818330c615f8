"""The bars that a terminal shows while a stage works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from targets.terminal_text import one_line
from toolchain.cli.streams import Lossy


@contextmanager
def bars() -> Iterator[Bars]:
    """Show bars until the block ends, on a descriptor of their own: a stage may send 1 and 2 to a log meanwhile."""
    with Lossy(os.dup(2), "w").text(raw=True) as terminal:
        columns = TextColumn("{task.description}"), BarColumn(), _Count(), TimeRemainingColumn()
        console = Console(file=terminal)
        with Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as progress:
            yield Bars(progress)


class Bars:
    """A bar for each label until it is done; one without a total pulses until the next label starts."""

    def __init__(self, progress: Progress) -> None:
        """Take rich's display, which is shown already."""
        self.progress, self.running = progress, dict[str, TaskID]()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Move the bar of a label; `toolchain.core.progress.Progress`."""
        if label not in self.running:
            self._end(*(old for old, task in self.running.items() if self.progress.tasks[task].total is None))
            self.running[label] = self.progress.add_task(one_line(label), total=total or None)
        self.progress.update(self.running[label], completed=done, total=total or None)
        if total and done >= total:
            self._end(label)

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(line, markup=False, highlight=False)

    def _end(self, *labels: str) -> None:
        for label in labels:
            self.progress.update(self.running.pop(label), visible=False)


class _Count(MofNCompleteColumn):
    """3/10, or nothing where the total is unknown."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()
