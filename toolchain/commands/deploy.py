"""Puts a model file on a board as a service, compares its answers there with those here, and goes back."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.dataset import Dataset
from calibration.glyph import glyph
from calibration.load import load
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.ssh.deployment import Deployed, Deployment
from toolchain.commands.snippet import snippet
from toolchain.core.context import RunContext
from toolchain.core.errors import ParityError, UsageProblem
from toolchain.evaluation.untracked import open_described
from toolchain.evaluation.word_context import probabilities
from toolchain.gate.candidate import open_session

DIGITS = "builtin:digits"
PICTURES = 50
WITHIN = 0.1
"""A probability there may differ from the one here by so much: processors round int8 files differently."""
LEAST_RIGHT = 0.25
"""Share of right answers below which a note says so; a model of another hand still reads more of the digits."""
_RUNNER = Path(__file__).parent / "snippets/runner.py"
_RUN = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
RUN="$0" PYTHONPATH="$here/lib" exec python3 "$here/runner.py" "$@"
"""


@dataclass(frozen=True)
class Delivery:
    """A model that a board runs. answers: pictures that it answered there as here; pushed: bytes by folder."""

    artifact: Artifact
    there: Deployed
    answers: int
    pushed: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        model = {"file": self.artifact.path.name, "sha256": self.artifact.sha256}
        return asdict(self.there) | model | {"answers": self.answers, "pushed": self.pushed}


def deploy(
    path: Path, board: str, *, name: str, port: int, data: str = DIGITS, context: RunContext | None = None
) -> Delivery:
    """Put a model file on a board, check its answers there, and let it run in place of the version before.

    board: `ssh://[USER@]HOST[:PORT]`. name: what it is called there. port: of the service on the board's loopback
    interface, 0 for none. data: whose first test images are answered there and here. Until every answer is the same
    the version before runs on. Raises UsageProblem for a name or file that cannot be deployed, ParityError for other
    answers there, and as `open_described`, `load`, `open_session` and `Deployment` do.
    """
    context = context or RunContext()
    target = deployment(board, name)
    artifact = open_described(path)
    contents = program(artifact)
    dataset = load(data, "test", context.data_root)
    pictures = dataset.images[:PICTURES]
    expected = _answers_here(artifact, pictures, context)
    version, pushed = target.put(contents, context.progress)
    context.say(f"{board}: {len(pictures)} pictures are read there, to compare the answers")
    _compare(expected, _answers_there(target, version, pictures), artifact, board)
    there = target.switch(version, port, artifact.sha256)
    there = replace(there, notes=[*there.notes, *_misread(artifact, expected, dataset)])
    return Delivery(artifact, there, len(pictures), pushed)


def roll_back(board: str, *, name: str, port: int) -> Deployed:
    """Let the version before run again on a board; raises UsageProblem for a name that cannot be, and RunFailed."""
    return deployment(board, name).roll_back(port)


def deployment(board: str, name: str) -> Deployment:
    """Return a name on a board; raises UsageProblem for a name or board that cannot be."""
    try:
        return Deployment(board, name)
    except ValueError as error:
        raise UsageProblem(f"--name: {error}") from error


def program(artifact: Artifact) -> dict[str, bytes]:
    """Return the files that a board gets: the model, its sidecar, and the programs that read with it."""
    texts = {
        "read.py": snippet(artifact),
        "runner.py": _RUNNER.read_text(encoding="utf-8"),
        "run": _RUN,
        artifact.sidecar.name: artifact.description(),
    }
    clash = {"lib", *texts} & {artifact.path.name}
    if clash:
        raise UsageProblem(f"{artifact.path.name}: the board needs that name itself; rename the file")
    return {artifact.path.name: artifact.path.read_bytes()} | {
        name: text.encode("utf-8", errors="backslashreplace") for name, text in texts.items()
    }


def _answers_here(artifact: Artifact, pictures: NDArray[np.uint8], context: RunContext) -> NDArray[np.float64]:
    glyphs = np.stack([glyph(Image.fromarray(picture)) for picture in pictures])
    with open_session(artifact, None, context.threads) as session:
        return probabilities(session.run(glyphs))


def _answers_there(target: Deployment, version: str, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    sent = io.BytesIO()
    np.save(sent, pictures)
    output = target.run(version, sent.getvalue())
    try:
        answers = np.load(io.BytesIO(output), allow_pickle=False)
        return probabilities(np.asarray(answers, np.float32).reshape(len(pictures), -1))
    except (ValueError, OSError) as error:
        raise RunFailed(f"{target.address}: the model does not answer there; run the same command again") from error


def _misread(artifact: Artifact, answers: NDArray[np.float64], dataset: Dataset) -> list[str]:
    """Return a note where hardly a picture is read right, as with a sidecar that names another turn."""
    if not set(dataset.classes) <= set(artifact.classes):
        return []
    labels = dataset.labels[: len(answers)]
    right = sum(
        artifact.classes[best] == dataset.classes[label] for best, label in zip(answers.argmax(1), labels, strict=True)
    )
    if right >= LEAST_RIGHT * len(answers):
        return []
    return [
        f"it reads {right} of {len(answers)} pictures of {dataset.origin} right, there as here; if it should read "
        f"them, see by `glyphpress evaluate` whether {artifact.sidecar.name} is right about turn, ink and scale"
    ]


def _compare(here: NDArray[np.float64], there: NDArray[np.float64], artifact: Artifact, board: str) -> None:
    """Raise ParityError unless every probability there is the one here."""
    same = here.shape == there.shape and np.abs(here - there).max(1) <= WITHIN  # False for NaN
    if not np.all(same):
        equal = int(np.sum(same))
        raise ParityError(
            f"{board}: {artifact.path.name} answers {equal} of {len(here)} pictures there as here; it was not switched "
            "to, and the version before runs on. Try another format, or float, for that processor"
        )
