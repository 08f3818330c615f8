"""Puts a model on a board for good: a version with all that it needs, the switch to it, and the way back."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from targets.errors import RunFailed, UnknownTarget
from targets.host.text import json_value
from targets.ssh.bundle import (
    Address,
    BoardFolder,
    archived,
    board_facts,
    installed_layers,
    push,
    run_on_board,
    shell_on_board,
    wheels_layer,
)
from targets.target import Progress, silent

VERSIONS = Path(__file__).with_name("versions.py")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""What a deployed model may be called: part of folders' and services' names."""


@dataclass(frozen=True)
class Deployed:
    """What a board has under a name.

    folder: where, there. current, previous: versions; empty without one. file: the model of the current version.
    service: the systemd unit that runs, empty without one. notes: what the user has to know or do.
    """

    folder: str
    current: str
    previous: str
    file: str = ""
    service: str = ""
    notes: list[str] = field(default_factory=list)


class Deployment:
    """A name on a board that is set up."""

    def __init__(self, word: str, name: str) -> None:
        """Take a target word, `ssh://pi@kitchen`, and what the model is called there.

        Raises UnknownTarget for a word that is no board's; ValueError for a name that does not fit `NAME`.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a service; take up to 32 of a to z, 0 to 9 and -")
        kind, _, rest = word.partition(":")
        if kind != "ssh":
            raise UnknownTarget(f"{word}: a model is deployed to a board, such as ssh://pi@kitchen")
        self.address, self.name = Address.parse(rest), name

    def state(self) -> Deployed:
        """Return what is there; raises TargetUnavailable or RunFailed."""
        return self._asked("state")

    def put(self, contents: Mapping[str, bytes], progress: Progress = silent) -> tuple[str, dict[str, int]]:
        """Put files there as a version that does not run yet; returns its name and the bytes pushed by folder.

        contents: file name -> bytes, with a shell program `run`. Raises TargetUnavailable for a board that is not set
        up, and RunFailed.
        """
        facts = board_facts(self.address)
        home, (_, runtimes) = installed_layers(self.address, facts)
        pictures = wheels_layer(facts.release, facts.architecture, pictures=True)
        digests = [hashlib.sha256(content).hexdigest() for content in contents.values()]
        made_of = " ".join((runtimes, pictures.name, *contents, *digests))
        with TemporaryDirectory() as folder:
            version = BoardFolder("model", made_of, lambda archive: archived(archive, _written(contents, folder)))
            missing = [] if pictures.name in facts.folders else [pictures]
            pushed = push(self.address, [*missing, version], progress)
        self._asked("settle", version.name, *(f"{home}/{each}" for each in (version.name, runtimes, pictures.name)))
        return version.name, pushed

    def run(self, version: str, content: bytes) -> bytes:
        """Run a version's `run --check` with `content` as its input; returns its output."""
        program = f"{self.state().folder}/{version}/run"
        with TemporaryFile() as stream:
            stream.write(content)
            stream.seek(0)
            return shell_on_board(self.address, f"exec {shlex.quote(program)} --check", stream)

    def switch(self, version: str, port: int, sha256: str) -> Deployed:
        """Let a version run, as a service on a port of the board's loopback interface unless that is 0.

        sha256: of the model for which the service must answer. Where it does not, the version before runs again, and
        RunFailed says so.
        """
        return self._asked("switch", version, str(port), sha256)

    def roll_back(self, port: int) -> Deployed:
        """Let the version before run again; raises RunFailed where there is none."""
        return self.switch("previous", port, "")

    def _asked(self, command: str, *arguments: str) -> Deployed:
        output = run_on_board(self.address, command, self.name, *arguments, program=VERSIONS)
        try:
            known: Any = json_value(output.splitlines()[-1])
            return Deployed(**known)
        except (ValueError, IndexError, TypeError) as error:
            raise RunFailed(f"{self.address}: it does not say what it has deployed; try it by hand") from error


def _written(contents: Mapping[str, bytes], folder: str) -> dict[str, Path]:
    for name, content in contents.items():
        (Path(folder) / name).write_bytes(content)
    return {name: Path(folder) / name for name in sorted(contents)}
