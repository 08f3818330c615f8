"""The commands that are killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ELSEWHERE = ("cache/", "tmp/", "home/")


@dataclass(frozen=True)
class Case:
    """A command that is killed. first: the name, below the folder that it runs in, that a whole result has.

    old: the command of another result of that name, which the killed one replaces; empty: it is never given --force.
    share: how often it has its turn. passing: names of files that may stand between a kill and the next run. varies: a
    pattern of NAME:PART that differs from run to run. trains: a killed run leaves what it trained in FIRST.resume, and
    goes on with --resume. stages: the first file is written several times, whole each time.
    """

    name: str
    command: tuple[str, ...]
    first: str
    old: tuple[str, ...] = ()
    share: int = 3
    passing: tuple[str, ...] = ()
    varies: str = "(?!)"
    trains: bool = False
    stages: bool = False

    @property
    def state(self) -> str:
        """The file from which a killed training continues."""
        return f"{self.first}.resume"

    @property
    def again(self) -> bool:
        """Whether a repeated run over a whole result asks for --force."""
        return bool(self.old)

    def result(self, name: str) -> bool:
        """Return whether a file belongs to the results, and not to the cache or the temporary folder."""
        return not name.startswith(ELSEWHERE)

    def is_first(self, name: str) -> bool:
        """Return whether a file is what has the first name, or lies in that folder."""
        return f"{name}/".startswith(f"{self.first}/")

    def varying(self, name: str) -> Callable[[str], bool]:
        """Return whether a part of a file differs from run to run."""
        return lambda part: re.search(self.varies, f"{name}:{part}") is not None


def _case(name: str, command: str, first: str, old: str = "", *, share: int, **others: Any) -> Case:
    return Case(name, tuple(command.split()), first, tuple(old.split()), share, **others)


DATA = "--data builtin:digits"
BASELINE = f"{DATA} --policy smoke -o b.npz"
PRESS = f"{DATA} --orientation upright --scale 0-1 --format onnx --policy smoke --out out"
TRAIN = f"train {DATA} --epochs 1 --threads 1 -o t.pt"
DISTILL = f"distill t0.pt {DATA} --epochs 1 --threads 1 -o s.pt2"
TIMES = r"report.json:/(machine|quiet|notes|rows/\d+/(p\d+|\w*ratio|of_|reasons|winner))|timings.npz:"
"""What is measured, and what is said of it: a busy machine is noted."""
# The rare ones are slow.
CASES = (
    _case(
        "quantize",
        "quantize float.onnx --scheme dynamic-int8 -o q.onnx",
        "q.onnx",
        "quantize float.onnx --scheme float16 -o q.onnx",
        share=9,
    ),
    _case(
        "export",
        "export float.onnx -o q.ort",
        "q.ort",
        "export other.onnx -o q.ort",
        share=6,
        varies="ort.json:/sha256",
    ),
    _case("evaluate", f"evaluate float.onnx {DATA} -o e.npz", "e.npz", f"evaluate other.onnx {DATA} -o e.npz", share=6),
    _case(
        "gate baseline",
        f"gate baseline float.onnx {BASELINE}",
        "b.npz",
        f"gate baseline other.onnx {BASELINE}",
        share=6,
    ),
    _case("data fetch", "data fetch --data-root data", "data/gzip", share=6, passing=("data/emnist-*.zip",)),
    _case("targets setup", "targets setup ssh://pi@kitchen", "cache/glyphpress", share=4),
    _case("train", TRAIN, "t.pt", f"{TRAIN} --seed 1", share=2, trains=True, stages=True),
    _case("distill", DISTILL, "s.pt2", f"{DISTILL} --seed 1", share=1, trains=True),
    _case(
        "press",
        f"press float.onnx {PRESS} --recipe dynamic-int8",
        "out",
        f"press other.onnx {PRESS} --recipe float16",
        share=2,
        varies=TIMES,
    ),
)
