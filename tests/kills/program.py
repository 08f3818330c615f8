"""The program, run in forks of a process that has imported it, with stand-ins for the network and for a board."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import numpy as np

from calibration.spec import SPLITS
from tests.fixtures.official_files import strokes, write_split
from tests.fixtures.small_readers import linear_reader
from tests.kills.cases import Case
from tests.kills.content import Parts, parts
from tests.kills.hook import before_operation

SSH = '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n'
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TEACHER = "t0.pt"
LIMIT_S = 300.0
"""A run that takes longer hangs."""
ORPHANS_S = 10.0
"""How long the children of a killed run may live."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (minus a signal's number), what it printed, how long it took, whom it left."""

    code: int
    said: str
    seconds: float
    orphans: list[str]


class Program:
    """Runs commands, each in a folder of its own below `home`."""

    url = ""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sources = home / "sources"
        self.sources.mkdir()
        linear_reader(self.sources / "float.onnx")
        linear_reader(self.sources / "other.onnx", step=0.01)
        (home / "ssh").write_text(SSH)
        (home / "ssh").chmod(stat.S_IRWXU)
        self.archive = _archive(home / "official")

    def prepare(self, cases: Sequence[Case]) -> None:
        """Import what others made, so that the forks have it, and train the teacher where a case needs one."""
        for module in ("onnx", "onnxruntime.quantization", "scipy.stats", "scipy.optimize"):
            import_module(module)
        if any(TEACHER in case.command for case in cases):
            import_module("torch")
            folder = self.fresh()
            self.run(folder, ("train", "--data", "builtin:digits", "--epochs", "1", "--threads", "1", "-o", TEACHER))
            shutil.copy(folder / TEACHER, self.sources)

    def fresh(self, kept: Path | None = None) -> Path:
        """Return the folder to run in, with nothing but the sources, or with all that a run left in `kept`."""
        folder = self.home / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept or self.sources, folder)
        return folder

    def keep(self, folder: Path, name: str) -> Path:
        """Return a copy of what a run left, for `fresh`."""
        return shutil.copytree(folder, self.home / "kept" / name)

    def run(self, folder: Path, words: Sequence[str]) -> Ended:
        """Run to the end."""
        return self._end(self._start(folder, words))

    def counted(self, folder: Path, words: Sequence[str], first: str) -> tuple[Ended, int, list[Parts]]:
        """Run to the end; return how many file operations that took, and each content that the first file had."""
        number, stages = self.home / "operations", self.home / "stages"
        number.write_text("0")
        shutil.rmtree(stages, ignore_errors=True)
        stages.mkdir()

        def act(done: int) -> None:
            number.write_text(str(done))
            if (folder / first).is_file():
                copy = stages / f"{(folder / first).stat().st_ino}{Path(first).suffix}"
                if not copy.exists():
                    shutil.copy(folder / first, copy)

        ended = self._end(self._start(folder, words, lambda: before_operation(folder, act)))
        made = sorted(stages.iterdir(), key=lambda path: path.stat().st_mtime)
        return ended, int(number.read_text()), [parts(path) for path in made]

    def killed_at(self, folder: Path, words: Sequence[str], operation: int, number: signal.Signals) -> Ended:
        """Send a run a signal before one of its file operations."""
        act = lambda done: _send(os.getpid(), number) if done == operation else None  # noqa: E731
        return self._end(self._start(folder, words, lambda: before_operation(folder, act)))

    def killed_after(self, folder: Path, words: Sequence[str], seconds: float, number: signal.Signals) -> Ended:
        """Send a run a signal after so many seconds, if it still runs."""
        child = self._start(folder, words)
        time.sleep(seconds)
        # Until it is waited for, its number is nobody else's.
        _send(child, number)
        return self._end(child)

    def _start(self, folder: Path, words: Sequence[str], listen: Callable[[], None] = lambda: None) -> int:
        # No signal meets the fork before it is the program.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        child = os.fork()
        if not child:
            self._be(folder, words, listen)
        os.setpgid(child, child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child

    def _be(self, folder: Path, words: Sequence[str], listen: Callable[[], None]) -> NoReturn:
        try:
            os.setpgid(0, 0)
            said = os.open(self.home / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.chdir(folder)
            places = {"TMPDIR": "tmp", "XDG_CACHE_HOME": "cache", "HOME": "home"}
            for variable, place in places.items():
                (folder / place).mkdir(exist_ok=True)
                os.environ[variable] = str(folder / place)
            os.environ["GLYPHPRESS_SSH"] = str(self.home / "ssh")
            os.environ.pop("GLYPHPRESS_DATA", None)
            tempfile.tempdir = None
            self._stand_in()
            sys.argv = ["glyphpress", *words]
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            listen()
            from toolchain.cli.main import main

            for number in SIGNALS[1:]:
                signal.signal(number, signal.SIG_DFL)
            # What came meanwhile ends it here, as it would end an interpreter that starts.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            main()
        except SystemExit as stop:
            os._exit(int(stop.code or 0))
        except BaseException:  # noqa: BLE001 (as the interpreter would)
            traceback.print_exc()
        os._exit(99)

    def _stand_in(self) -> None:
        """Let the archive and the wheels be small ones that need no network."""
        from calibration import download
        from targets.ssh import bundle
        from targets.ssh.bundle import BoardFolder

        download.OFFICIAL = download.Archive(self.url, hashlib.md5(self.archive).hexdigest(), len(self.archive))
        bundle.wheels_layer = lambda _python, _machine: BoardFolder(
            "wheels", "small", lambda part: part.write_bytes(_tar())
        )

    def _end(self, child: int) -> Ended:
        started, hangs = time.monotonic(), False
        while not (state := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - started > LIMIT_S:
                hangs = True
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.005)
        seconds = time.monotonic() - started
        while (orphans := _group(child)) and time.monotonic() - started < seconds + ORPHANS_S:
            time.sleep(0.05)
        if orphans:
            os.killpg(child, signal.SIGKILL)
        said = (self.home / "said").read_text(errors="replace") + ("\nit hangs" if hangs else "")
        return Ended(os.waitstatus_to_exitcode(state[1]), said, seconds, orphans)


def _send(process: int, number: signal.Signals) -> None:
    """Send a signal; Ctrl-C reaches the children too, as a terminal's does."""
    (os.killpg if number is signal.SIGINT else os.kill)(process, number)


def _group(leader: int) -> list[str]:
    """Return the names of the processes in a group that still run."""
    names = []
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, fields = stat_file.read_text(errors="replace").rpartition(")")
            state, _, group = fields.split()[:3]
            if int(group) == leader and state not in "ZX":
                names.append(name.partition("(")[2])
    return names


def _archive(folder: Path) -> bytes:
    folder.mkdir()
    for name in SPLITS:
        for split in ("train", "test"):
            write_split(folder, name, split, strokes(10), np.arange(10))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"gzip/{path.name}")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("wheels.txt"))
    # Without the time, so that it is the same one each time.
    return gzip.compress(buffer.getvalue(), mtime=0)
