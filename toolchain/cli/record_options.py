"""The options that record a training, epoch by epoch: a CSV file and a picture of its curves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from toolchain.cli import options, values
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from toolchain.training.log import EpochFigures


@dataclass(frozen=True)
class Records:
    """The files that a command line names; None for each that it does not."""

    log: Path | None
    curve: Path | None

    def refuse_unfit(self, *, force: bool) -> None:
        """Raise UsageProblem where a file has another suffix or exists; call it before the training."""
        from toolchain.core.files import refuse_unfit

        for path, suffix in ((self.log, ".csv"), (self.curve, ".svg")):
            if path:
                refuse_unfit(path, suffix, force=force)

    def write(self, title: str, epochs: Sequence[EpochFigures]) -> None:
        """Replace both files by those of the epochs so far; each is whole at every moment."""
        from toolchain.core.files import write_whole
        from toolchain.report.pictures import training_svg
        from toolchain.training.log import write_log

        if self.log:
            write_log(self.log, epochs)
        if self.curve:
            write_whole(self.curve, training_svg(title, epochs), force=True)


def record_options(command: Command) -> Command:
    """Add `--log` and `--curve`; the command gets `records: Records`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return command(*args, records=Records(kwargs.pop("log"), kwargs.pop("curve")), **kwargs)

    return options.with_options(cast(Command, wrapped), _OPTIONS)


_OPTIONS = (
    click.option("--log", type=values.OUTPUT_FILE, help="Write loss, accuracy and learning rate by epoch (.csv)."),
    click.option("--curve", type=values.OUTPUT_FILE, help="Draw them as curves (.svg)."),
)
