"""RunContext: what a whole run has in common, handed on as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolchain.core.progress import Progress, silent


@dataclass(frozen=True)
class RunContext:
    """The settings of one run.

    seed: of every generator of random numbers. threads: for training and evaluation, 0 takes all cores. progress: hears
    how far a stage is. data_root: the folder in which EMNIST's files are searched first. force: overwrite files.
    """

    seed: int = 0
    threads: int = 0
    progress: Progress = silent
    data_root: Path | None = None
    force: bool = False
