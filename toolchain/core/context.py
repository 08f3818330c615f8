"""RunContext: the settings that all stages of a run share, passed as one value; one of them hears the progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.core.trainings import Trainings

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`, called by stages; a `total` of 0 means unknown. It must not raise."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Ignore all progress; the default of every stage."""


def unheard(_line: str) -> None:
    """Ignore a line for the user; the default of every stage."""


@dataclass(frozen=True)
class RunContext:
    """The settings of one run.

    seed: of every generator of random numbers. threads: for training and evaluation, 0 takes all cores. progress:
    called by stages to report how far they are. say: called by stages with a line of news for the user. data_root:
    folder that is searched first for EMNIST's files. force: overwrite files. resume: continue what a killed run began.
    trainings: where trainings keep their states, None where they keep none.
    """

    seed: int = 0
    threads: int = 0
    progress: Progress = silent
    say: Callable[[str], None] = unheard
    data_root: Path | None = None
    force: bool = False
    resume: bool = False
    trainings: Trainings | None = None
