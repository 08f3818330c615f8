"""How much CPU time a command takes to start: `python -m bench.startup`, about a minute.

Measures the CPU time (user and system, all threads) of fresh processes in turns: each command, and the imports that it
cannot do without. The gate judges two saved evaluations of 18,800 images. Exit 1 if a command exceeds its limit.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from targets.preprocess import Preprocess
from targets.session import RuntimeFacts
from toolchain.evaluation.evaluate import Evaluation

PROGRAM = "from toolchain.cli.main import main; main()"
IMAGES = 18_800
GATE = ("gate", "--baseline", "float.npz", "--candidate", "int8.npz")


@dataclass(frozen=True)
class Start:
    """A command, the Python code that it is compared with, and the largest ratio of the two times that is allowed.

    terminal: stdout is one.
    """

    words: tuple[str, ...]
    floor: str
    most: float | None = None
    terminal: bool = False


STARTS = (
    Start(("--help",), "import rich_click", 1.5),
    Start(("--help",), "import rich_click", 1.5, terminal=True),
    Start(("version",), "import rich_click"),
    Start(("targets", "--help"), "import rich_click"),
    Start(("recipe", "list"), "import rich_click, pydantic"),
    Start(("compare", "float.npz", "int8.npz"), "import numpy"),
    Start(GATE, "import numpy, scipy.special", 2.0),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        answers(Path(folder))
        times = [
            [
                (
                    seconds(start.floor, (), folder),
                    seconds(PROGRAM, start.words, folder, on_terminal=start.terminal),
                )
                for start in STARTS
            ]
            for _ in range(rounds)
        ]
    print(f"{'command':46} {'CPU':>7} {'floor':>7} {'ratio':>6} {'at most':>8}  floor")
    slow = False
    for start, *pairs in zip(STARTS, *times, strict=True):
        floor, command = (statistics.median(column) for column in zip(*pairs, strict=True))
        slow |= start.most is not None and command > start.most * floor
        most = f"{start.most:.1f}" if start.most else "-"
        figures = f"{command:5.3f} s {floor:5.3f} s {command / floor:6.2f} {most:>8}"
        name = " ".join(start.words) + " on a terminal" * start.terminal
        print(f"{name:46} {figures}  {start.floor}")
    return int(slow)


def seconds(code: str, words: tuple[str, ...], folder: str, *, on_terminal: bool = False) -> float:
    """Return the CPU time of a fresh interpreter from its start to its end; its output is dropped."""
    reader, stdout = pty.openpty() if on_terminal else os.pipe()
    command = [sys.executable, "-c", f"import os; os.chdir({folder!r})\n{code}", *words]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1)])
    os.close(stdout)
    with suppress(OSError):  # a terminal whose last writer has gone
        while os.read(reader, 65536):
            pass
    os.close(reader)
    _, status, used = os.wait4(process, 0)
    assert not status, f"{words}: {status}"
    return used.ru_utime + used.ru_stime


def answers(folder: Path) -> None:
    """Save two evaluations of the same images; the second has 30 new errors and 20 new correct answers."""
    labels = np.arange(IMAGES) % 10
    before, after = labels.copy(), labels.copy()
    after[:30], before[30:50] = (labels[:30] + 1) % 10, (labels[30:50] + 1) % 10
    for name, read in (("float", before), ("int8", after)):
        Evaluation(
            logits=np.eye(10, dtype=np.float32)[read] * 9,
            labels=labels,
            sample_ids=np.arange(IMAGES).astype("S32"),
            classes=tuple("0123456789"),
            origin="numbered/test",
            dataset_sha256="1" * 64,
            artifact=f"{name}.onnx",
            artifact_sha256=sha256(name.encode()).hexdigest(),
            artifact_bytes=1000,
            facts=RuntimeFacts("null", "scripted", "1", "none", 1),
            preprocess=Preprocess(),
        ).save(folder / f"{name}.npz")


if __name__ == "__main__":
    sys.exit(main())
