"""Resuming a killed run: the states of its trainings are in a file beside its result until that is made."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from targets.errors import translated
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import whole_file

SCHEMA = "glyphpress/resume/1"
_MOST_DIFFERENCES = 3

State = dict[str, Any]
"""Tensors and plain Python types, which torch.load reads with weights_only."""


@dataclass
class Trainings:
    """The trainings of one run, in the order in which they begin.

    path: the file with their states. saved: one dictionary each, with `inputs` and `state`.
    """

    path: Path
    saved: list[State] = field(default_factory=list)
    _begun: int = 0

    def begin(self, inputs: Mapping[str, str]) -> Training:
        """Return the next training; inputs: all that its result depends on, by name.

        Raises UsageProblem, which says what differs, where the file has the state of another training.
        """
        if self._begun == len(self.saved):
            self.saved.append({"inputs": dict(inputs), "state": {}})
        self._begun += 1
        entry = self.saved[self._begun - 1]
        if differences := _differences(entry["inputs"], inputs):
            raise UsageProblem(
                f"{self.path} is of another training ({differences}); repeat the command of that one, "
                "name another output, or start over by --force without --resume"
            )
        return Training(self, entry)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        import torch

        # Through memory, since torch does not report a full disk as an OSError.
        buffer = io.BytesIO()
        torch.save({"schema": SCHEMA, "trainings": self.saved}, buffer)
        with whole_file(self.path, force=True) as part:
            part.write_bytes(buffer.getvalue())


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    run: Trainings
    _entry: State

    @property
    def path(self) -> Path:
        """Return the file with the state."""
        return self.run.path

    @property
    def state(self) -> State:
        """Return the state that was saved last; empty where there is none."""
        state: State = self._entry["state"]
        return state

    def save(self, state: State) -> None:
        """Replace the state, in the file too."""
        # The next steps change its tensors, and later trainings of the run save it again.
        self._entry["state"] = copy.deepcopy(state)
        self.run.save()

    def forget(self) -> None:
        """Drop the state; the file goes too where it has no other one."""
        self._entry["state"] = {}
        if any(entry["state"] for entry in self.run.saved):
            self.run.save()
        else:
            self.path.unlink(missing_ok=True)


def _differences(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [name for name in now if saved.get(name) != now[name]]
    texts = [f"{name} {saved.get(name, 'not set')} there, {now[name]} here" for name in names[:_MOST_DIFFERENCES]]
    return "; ".join(texts + ["..."] * (len(names) > _MOST_DIFFERENCES))


def may_replace(output: Path, context: RunContext) -> bool:
    """Return whether a run may replace `output`: with `force`, and where it continues one that was killed.

    Raises UsageProblem where one was killed, and neither `resume` nor `force` says what to do.
    """
    is_unfinished = _state_file(output).exists()
    if is_unfinished and not context.resume and not context.force:
        raise UsageProblem(
            f"{_state_file(output)} is left of an unfinished run; add --resume to continue it, or --force to start over"
        )
    return context.force or is_unfinished


@contextmanager
def resumable(output: Path, context: RunContext) -> Iterator[RunContext]:
    """Yield the context in which trainings save their states in `OUTPUT.resume`, which goes when the block succeeds.

    Where a killed run left that file, `context.resume` continues it. Raises as `may_replace` does, and EvidenceError
    for a file that holds no such states.
    """
    path, replaces = _state_file(output), may_replace(output, context)
    trainings = Trainings(path, _read(path) if context.resume and path.exists() else [])
    if context.resume and not trainings.saved:
        context.say(f"{path} is not there, so nothing is continued: the run starts")
    try:
        yield replace(context, trainings=trainings, force=replaces)
    except KeyboardInterrupt as stop:
        if not path.exists():
            raise
        raise KeyboardInterrupt(f"{stop}; the same command with --resume continues") from stop
    path.unlink(missing_ok=True)


def _state_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.resume")


def _read(path: Path) -> list[State]:
    import torch

    def unfit(reason: str) -> EvidenceError:
        return EvidenceError(f"{path} does not hold the state of a run ({reason}); --force starts over")

    with translated(unfit):
        content = torch.load(path, map_location="cpu", weights_only=True)
    trainings = content.get("trainings") if isinstance(content, dict) and content.get("schema") == SCHEMA else None
    if not isinstance(trainings, list) or not all(_is_entry(entry) for entry in trainings):
        raise unfit(f"its schema is not {SCHEMA}")
    return trainings


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"inputs", "state"}
        and all(isinstance(part, dict) for part in entry.values())
        and all(isinstance(text, str) for pair in entry["inputs"].items() for text in pair)
    )
