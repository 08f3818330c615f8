"""Resuming a killed run: the states of its trainings are in a file beside its result until that is made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from targets.errors import translated
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, GlyphpressError, UsageProblem
from toolchain.core.files import refuse_existing
from toolchain.core.trainings import State, Trainings, unpacked


def may_replace(output: Path, context: RunContext) -> bool:
    """Return whether a run may replace `output`: with `force`, and where it continues one that was killed.

    Raises UsageProblem where one was killed, and neither `resume` nor `force` says what to do, and where `resume` has
    nothing to continue but would replace a result.
    """
    if context.trainings:
        return context.force
    is_unfinished = os.path.lexists(_state_file(output))
    if is_unfinished and not context.resume and not context.force:
        raise UsageProblem(
            f"{_state_file(output)} is left of an unfinished run; add --resume to continue it, or --force to start over"
        )
    if context.resume and not is_unfinished and not context.force and os.path.lexists(output):
        raise UsageProblem(
            f"there is no {_state_file(output)} to continue from, and {output} is already there; give another name, or "
            "--force to start over"
        )
    return context.force or is_unfinished


@contextmanager
def resumable(output: Path, context: RunContext) -> Iterator[RunContext]:
    """Yield the context in which trainings save their states in `OUTPUT.resume`, which goes when the block succeeds.

    Where a killed run left that file, `context.resume` continues it. In another such block, the file of that one is
    used. Raises as `may_replace` and, for `OUTPUT.resume`, `refuse_existing` do, and EvidenceError for a file that
    holds no such states.
    """
    if context.trainings:
        yield context
        return
    path, replaces = _state_file(output), may_replace(output, context)
    refuse_existing(path, force=True)
    trainings = Trainings(path, _read(path) if context.resume and path.exists() else [])
    if context.resume and not trainings.saved:
        context.say(f"{path} is not there, so nothing is continued: the run starts")
    try:
        yield replace(context, trainings=trainings, force=replaces)
    except KeyboardInterrupt as stop:
        if not path.exists():
            raise
        raise KeyboardInterrupt(f"{stop}; the same command with --resume continues") from stop
    except (GlyphpressError, OSError):
        if path.exists():
            context.say(f"{path} keeps what was trained: the same command with --resume does not train it again")
        raise
    path.unlink(missing_ok=True)


def _state_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.resume")


def _read(path: Path) -> list[State]:
    def unfit(reason: str) -> EvidenceError:
        return EvidenceError(
            f"{path} does not hold the state of a run ({reason}); --force without --resume starts over"
        )

    content = path.read_bytes()
    with translated(unfit):
        trainings = unpacked(content)
    if not isinstance(trainings, list) or not all(_is_entry(entry) for entry in trainings):
        raise unfit("it holds something else")
    return trainings


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"inputs", "state"}
        and all(isinstance(part, dict) for part in entry.values())
        and all(isinstance(text, str) for pair in entry["inputs"].items() for text in pair)
    )
