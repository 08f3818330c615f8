"""The trainings of one run, and the file that holds the state of each, from which a killed run continues."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.core.errors import UsageProblem
from toolchain.core.files import whole_file

SCHEMA = "glyphpress/resume/2"
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

    def drop_after(self, entry: State) -> None:
        """Forget the trainings that began after the one of `entry`."""
        self._begun = 1 + next(index for index, each in enumerate(self.saved) if each is entry)
        del self.saved[self._begun :]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = packed(self.saved)
        with whole_file(self.path, force=True) as part:
            part.write_bytes(content)


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

    def absorb(self, state: State) -> None:
        """Replace the state, and drop the trainings that began after this one: the new state holds their results."""
        self.run.drop_after(self._entry)
        self.save(state)

    def forget(self) -> None:
        """Drop the state; the file goes too where it has no other one."""
        self._entry["state"] = {}
        if any(entry["state"] for entry in self.run.saved):
            self.run.save()
        else:
            self.path.unlink(missing_ok=True)


def packed(saved: list[State]) -> bytes:
    """Return the content of the file: a line with the schema and the SHA-256 of the rest, then what torch.save makes.

    torch.load reads tensors of which bytes were changed without a word, so the digest has to tell.
    """
    import torch

    # Through memory, since torch does not report a full disk as an OSError.
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    states = buffer.getvalue()
    return _first_line(states) + states


def unpacked(content: bytes) -> Any:
    """Return what was packed; raises ValueError, with the reason, where the content is not as it was written."""
    import torch

    line, _, states = content.partition(b"\n")
    if not line.startswith(f"{SCHEMA} ".encode()):
        raise ValueError(f"its first line does not say {SCHEMA}")
    if line + b"\n" != _first_line(states):
        raise ValueError("it was cut off or changed after it was written")
    return torch.load(io.BytesIO(states), map_location="cpu", weights_only=True)


def _first_line(states: bytes) -> bytes:
    return f"{SCHEMA} {hashlib.sha256(states).hexdigest()}\n".encode()


def _differences(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    texts = [
        f"{name} {saved.get(name, 'not set')} there, {now.get(name, 'not set')} here"
        for name in names[:_MOST_DIFFERENCES]
    ]
    return "; ".join(texts + ["..."] * (len(names) > _MOST_DIFFERENCES))
