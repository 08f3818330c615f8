"""Reads the characters of a picture of handwriting: text, answers with confidence, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Images, chunks
from calibration.spec import chosen_classes
from calibration.words import Box, Writing
from targets.host.text import argument
from targets.session import Session
from toolchain.core.context import Progress, silent
from toolchain.core.quantities import counted
from toolchain.evaluation.word_context import Floats, in_words, probabilities

_FEWEST = 4
"""Characters from which on a page can be judged to stand on its head: O, I, N and Z look the same both ways."""
_BETTER = 0.05
"""Mean confidence by which a page reads better turned, from which on that is said."""


@dataclass(frozen=True)
class Answer:
    """A class, and the probability that the model gives it."""

    name: str
    confidence: float


@dataclass(frozen=True)
class ReadCharacter:
    """One character. read: what the text has for it, empty for a mark that the model has no class for.

    line, word: their numbers, from 0; words are counted through the whole picture. box: left, top, right, bottom in
    pixels, the last two exclusive. answers: of the model for this glyph alone, the likeliest first. mark, joined: as in
    `calibration.words.Character`.
    """

    read: str
    line: int
    word: int
    box: Box
    answers: tuple[Answer, ...]
    mark: bool
    joined: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        answers = [{"class": answer.name, "confidence": answer.confidence} for answer in self.answers]
        facts = {"read": self.read, "line": self.line, "word": self.word, "box": list(self.box), "answers": answers}
        return facts | {"mark": self.mark, "joined": self.joined}


@dataclass(frozen=True)
class Reading:
    """What a picture says. turn: degrees by which it was turned clockwise before.

    confidence, turned_confidence: means of the best answers, as the picture stands and on its head. notes: what looks
    wrong, one line each.
    """

    path: Path
    writing: Writing = field(repr=False)
    turn: int
    text: str
    characters: tuple[ReadCharacter, ...]
    confidence: float
    turned_confidence: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        height, width = self.writing.gray.shape
        size = {"width": width, "height": height, "paper": self.writing.paper, "rotate": self.turn}
        means = {"confidence": self.confidence, "turned_confidence": self.turned_confidence}
        characters = [character.to_dict() for character in self.characters]
        facts = {"file": str(self.path)} | size | {"text": self.text, "lines": self.text.split("\n")} | means
        return facts | {"notes": list(self.notes), "characters": characters}


@dataclass(frozen=True)
class ReadSettings:
    """How to read. turn: as in `cut_file`. top: answers to keep. classes: the only ones to answer, all without any.

    alone: read every character without its word (`toolchain.evaluation.word_context`).
    """

    turn: int = 0
    top: int = 3
    classes: tuple[str, ...] = ()
    alone: bool = False


def read_writing(
    session: Session, path: Path, writing: Writing, settings: ReadSettings, progress: Progress = silent
) -> Reading:
    """Read a picture that was cut; raises UnknownData for a class that the model does not have, and as `Session.run`.

    Marks are left out of the text where the model has letters and digits only, unless there is nothing else.
    """
    classes = session.artifact.classes
    allowed = _allowed(classes, settings.classes, session.artifact.path.name)
    chances = _chances(session, writing.glyphs, allowed, progress)
    marks = [character.mark for character in writing.characters]
    left_out = [mark and not all(marks) and all(name.isalnum() for name in classes) for mark in marks]
    words = _words(writing)
    if settings.alone:
        read = np.argmax(chances, 1)
    else:
        read = in_words(chances, [[row for row in word if not left_out[row]] for word in words], classes)
    names = ["" if out else classes[best] for out, best in zip(left_out, read, strict=True)]
    real = [row for row, out in enumerate(left_out) if not out]
    turned = _chances(session, np.ascontiguousarray(np.rot90(writing.glyphs[real], 2, (1, 2))), allowed, progress)
    confidence, upside_down = (float(each.max(1).mean()) for each in (chances[real], turned))
    word_of = {row: number for number, word in enumerate(words) for row in word}
    characters = tuple(
        ReadCharacter(
            names[row],
            each.line,
            word_of[row],
            each.box,
            _best(chances[row], classes, settings),
            each.mark,
            each.joined,
        )
        for row, each in enumerate(writing.characters)
    )
    lines = f"{counted(writing.rules, 'long thin line')} (rule, frame) {'is' if writing.rules == 1 else 'are'} left out"
    notes = [lines] if writing.rules else []
    notes += _notes(path, characters, settings.turn, upside_down - confidence, upside_down)
    told = tuple(f"{path}: {note}" for note in notes)
    text = writing.text(names)
    return Reading(path, writing, settings.turn, text, characters, confidence, upside_down, told)


def _allowed(classes: tuple[str, ...], chosen: tuple[str, ...], model: str) -> Floats:
    names = chosen_classes(chosen, classes, model) if chosen else classes
    return np.array([name in names for name in classes], np.float64)


def _chances(session: Session, glyphs: Images, allowed: Floats, progress: Progress) -> Floats:
    """Return probabilities among the allowed classes, [N, K]."""
    parts = []
    for part in chunks(len(glyphs)):
        parts.append(probabilities(session.run(glyphs[part])))
        progress(f"read by {session.artifact.path.name}", part.stop, len(glyphs))
    chances = np.concatenate(parts) * allowed
    return np.asarray(chances / np.maximum(chances.sum(1, keepdims=True), 1e-30))


def _words(writing: Writing) -> list[list[int]]:
    """Return the numbers of the characters of each word."""
    words: list[list[int]] = []
    line = -1
    for row, character in enumerate(writing.characters):
        if character.space or character.line != line:
            words.append([])
        words[-1].append(row)
        line = character.line
    return words


def _best(chances: Floats, classes: Sequence[str], settings: ReadSettings) -> tuple[Answer, ...]:
    most = len(settings.classes) or len(classes)
    order = np.argsort(-chances, kind="stable")[: min(settings.top, most)]
    return tuple(Answer(classes[best], float(chances[best])) for best in order)


def _notes(path: Path, characters: Sequence[ReadCharacter], turn: int, better: float, upside_down: float) -> list[str]:
    notes = []
    left_out = sum(not character.read for character in characters)
    joined = sum(character.joined for character in characters)
    if left_out:
        marks = f"{counted(left_out, 'small mark')} (full stop, dash, speck)"
        notes.append(f"{marks} {'is' if left_out == 1 else 'are'} left out, since the model has none")
    if joined:
        wide = "1 piece is so wide that it" if joined == 1 else f"{joined:,} pieces are so wide that they"
        notes.append(f"{wide} may be letters that touch, which are not cut")
    if better > _BETTER and len(characters) - left_out >= _FEWEST:
        notes.append(
            f"it reads better turned by 180 degrees (mean confidence {upside_down:.0%} instead of "
            f"{upside_down - better:.0%}); "
            f"if it lies upside down: `glyphpress read {argument(path)} --rotate {(turn + 180) % 360}`"
        )
    return notes
