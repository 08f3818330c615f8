"""Kill commands at random moments and between their file operations, and look at what they leave.

`python -m tests.kills.run --kills 200` prints a line for each command and exits 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.calibration.archive_server import Behaviour, serving
from tests.calibration.official_files import strokes, write_split
from tests.kills.hook import before_operation, end_at
from tests.toolchain.readers import linear_reader

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DATA = ("--data", "builtin:digits")
SCHEME = ("--scheme", "dynamic-int8")
PRESS = (
    "--orientation",
    "upright",
    "--scale",
    "0-1",
    "--format",
    "onnx",
    "--recipe",
    "dynamic-int8",
    "--policy",
    "smoke",
)
SSH = '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n'


@dataclass(frozen=True)
class Case:
    """A command that is killed. outputs: the names, below the folder that it runs in, of a whole result."""

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]
    share: int
    again: bool = True
    """Whether a repeated run over a whole result asks for --force."""


CASES = (
    Case(
        "quantize", ("quantize", "float.onnx", "--scheme", "dynamic-int8", "-o", "q.onnx"), ("q.onnx", "q.onnx.json"), 5
    ),
    Case("export", ("export", "float.onnx", "-o", "q.ort"), ("q.ort", "q.ort.json"), 4),
    Case("evaluate", ("evaluate", "float.onnx", *DATA, "-o", "e.npz"), ("e.npz",), 3),
    Case("gate baseline", ("gate", "baseline", "float.onnx", *DATA, "--policy", "smoke", "-o", "b.npz"), ("b.npz",), 3),
    Case(
        "press",
        ("press", "float.onnx", *DATA, *PRESS, "--out", "out"),
        ("out/report.json", "out/report.md", "out/timings.npz"),
        3,
    ),
    Case("data fetch", ("data", "fetch", "--data-root", "data"), ("data/gzip",), 3, again=False),
    Case("targets setup", ("targets", "setup", "ssh://pi@kitchen"), ("cache/glyphpress",), 3, again=False),
    Case("train", ("train", *DATA, "--epochs", "2", "--threads", "1", "--out", "t.pt"), ("t.pt",), 3),
    Case("distill", ("distill", "t0.pt", *DATA, "--epochs", "1", "-o", "s.pt2"), ("s.pt2",), 2),
)


class Killer:
    """Runs commands in forks of this process, which has imported what they need, each in a folder of its own."""

    def __init__(self, home: Path, chance: random.Random) -> None:
        self.home, self.chance, self.faults = home, chance, list[str]()
        self.sources = home / "sources"
        self.sources.mkdir()
        linear_reader(self.sources / "float.onnx")
        (home / "ssh").write_text(SSH)
        (home / "ssh").chmod(stat.S_IRWXU)
        self.archive = _archive(home / "official")

    def run(self, case: Case, folder: Path, words: tuple[str, ...], url: str, prepare: Callable[[], None]) -> int:
        """Start the program in a fork and return its process."""
        if child := os.fork():
            return child
        with suppress(BaseException), (folder / "tmp" / "said").open("wb") as said:
            os.chdir(folder)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.environ |= {
                "TMPDIR": str(folder / "tmp"),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "XDG_STATE_HOME": str(folder / "state"),
                "GLYPHPRESS_SSH": str(self.home / "ssh"),
            }
            tempfile.tempdir = None
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._stand_in(url)
            sys.argv = ["glyphpress", *words]
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            prepare()
            from toolchain.cli.main import main

            try:
                main()
            except SystemExit as stop:
                os._exit(int(stop.code or 0))
        os._exit(99)

    def _stand_in(self, url: str) -> None:
        """Let the archive and the wheels be small ones that need no network."""
        from calibration import download
        from targets.ssh import setup
        from targets.ssh.bundle import Layer

        download.OFFICIAL = download.Archive(url, hashlib.md5(self.archive).hexdigest(), len(self.archive))
        setup.wheels_layer = lambda _python, _machine: Layer("wheels", "small", lambda part: part.write_bytes(_tar()))

    def finished(self, case: Case, folder: Path, words: tuple[str, ...], url: str) -> tuple[int, float]:
        """Run to the end; return exit code and seconds."""
        started = time.monotonic()
        child = self.run(case, folder, words, url, lambda: None)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - started

    def fresh(self, name: str) -> Path:
        folder = self.home / name
        shutil.copytree(self.sources, folder)
        for each in ("tmp", "cache", "state"):
            (folder / each).mkdir()
        return folder

    def measured(self, case: Case, url: str) -> tuple[int, float]:
        """Return how many file operations a whole run has, and how many seconds."""
        folder = self.fresh("measured")
        started = time.monotonic()
        count = self.home / "operations"
        prepare = lambda: before_operation(folder, lambda done: count.write_text(str(done)) and None)  # noqa: E731
        child = self.run(case, folder, case.words, url, prepare)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            self.faults.append(f"{case.name}: exit {code} without a kill: {_said(folder)}")
        shutil.rmtree(folder)
        return int(count.read_text()), time.monotonic() - started

    def kill(self, case: Case, url: str, operations: int, seconds: float) -> str:
        """Kill one run, look at what is left, and run it again; return how it was killed."""
        number = self.chance.choice(SIGNALS)
        between = self.chance.random() < 0.6
        folder = self.fresh("killed")
        force = case.again and self.chance.random() < 0.4
        words = case.words
        if force:
            self.finished(case, folder, case.words, url)
            words = (*case.words, "--force")
        before = {name: _digest(folder / name) for name in case.outputs}
        operation = self.chance.randint(1, operations)
        prepare = (lambda: end_at(folder, operation, number)) if between else (lambda: None)
        child = self.run(case, folder, words, url, prepare)
        if not between:
            time.sleep(self.chance.random() * seconds)
            with suppress(ProcessLookupError):
                os.kill(child, number)
        os.waitpid(child, 0)
        how = f"{case.name}, {number.name} {f'at operation {operation}' if between else 'at a random moment'}"
        self._look(case, folder, before, url, f"{how}{', over an old result' if force else ''}")
        shutil.rmtree(folder)
        return f"{number.name} {'between operations' if between else 'at random'}"

    def _look(self, case: Case, folder: Path, before: dict[str, str], url: str, how: str) -> None:
        if any(before.values()) and not all((folder / name).exists() for name in case.outputs[:1]):
            self.faults.append(f"{how}: the old result is gone")
        # What is there may be run over with --force alone; what is not must need none.
        code, _ = self.finished(case, folder, case.words, url)
        whole = all((folder / name).exists() for name in case.outputs)
        if code == 2 and case.again and whole:
            code, _ = self.finished(case, folder, (*case.words, "--force"), url)
        if code:
            self.faults.append(f"{how}: the repeated run exits {code}: {_said(folder)}")
        left = [path for path in folder.rglob(".*") if path.name.startswith((".glyphpress-", ".part-", ".emnist-"))]
        left += [path for path in (folder / "tmp").iterdir() if path.name not in {"said", ".ses"}]
        missing = [name for name in case.outputs if not (folder / name).exists()]
        if left or missing:
            self.faults.append(f"{how}: left {[path.name for path in left]}, missing {missing}")


def kills(
    count: int,
    seed: int,
    names: tuple[str, ...] = (),
    heard: Callable[[Counter[str], list[str]], None] = lambda _done, _faults: None,
) -> tuple[Counter[str], list[str]]:
    """Do so many kills; `heard` gets the counts after each. Return the counts of each kind, and what was wrong."""
    chance = random.Random(seed)
    cases = [case for case in CASES if not names or case.name in names]
    done = Counter[str]()
    with tempfile.TemporaryDirectory() as home:
        killer = Killer(Path(home), chance)
        with serving(Behaviour(killer.archive)) as url:
            if any(case.name == "distill" for case in cases):
                _import_torch(killer, url)
            known = {case.name: killer.measured(case, url) for case in cases}
            for case in chance.choices(cases, [case.share for case in cases], k=count):
                how = killer.kill(case, url, *known[case.name])
                done[case.name] += 1
                done[how] += 1
                heard(done, killer.faults)
    return done, killer.faults


def _import_torch(killer: Killer, url: str) -> None:
    import torch  # noqa: F401 (so that the forks have it)

    train = next(case for case in CASES if case.name == "train")
    folder = killer.fresh("teacher")
    killer.finished(train, folder, train.words, url)
    shutil.copy(folder / "t.pt", killer.sources / "t0.pt")
    shutil.rmtree(folder)


def _archive(folder: Path) -> bytes:
    from calibration.splits import SPLITS

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
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("wheels.txt"))
    return buffer.getvalue()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _said(folder: Path) -> str:
    return (folder / "tmp" / "said").read_text(errors="replace")[-300:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    cases = {case.name for case in CASES}

    def heard(done: Counter[str], faults: list[str]) -> None:
        total = sum(count for name, count in done.items() if name in cases)
        print(f"{total} of {asked.kills}, {len(faults)} faults", file=sys.stderr, flush=True)

    done, faults = kills(asked.kills, asked.seed, heard=heard)
    for name, count in sorted(done.items()):
        print(f"{count:4}  {name}")
    print(f"{asked.kills} kills, seed {asked.seed}: {len(faults)} faults", *faults, sep="\n  ")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
