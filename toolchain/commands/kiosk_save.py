"""Keeps glyphs that a kiosk's models read wrong, as a folder of pictures that `--data` takes as a test set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.dataset import SIDE
from calibration.glyph import is_glyph
from calibration.picture_folder import CLASS_LIST, listed_classes
from targets.host.text import json_text
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import whole_file, write_whole

GLYPH_BYTES = SIDE * SIDE


@dataclass(frozen=True)
class KeptGlyph:
    """A glyph in the folder. file: its path in it. new: whether it was not there before, as this class.

    instead: the class as which it was kept until now, empty where it was not kept.
    """

    file: str
    new: bool
    instead: str = ""


@dataclass
class GlyphFolder:
    """A folder of wrongly read glyphs; `open_glyph_folder` makes one.

    folders: class -> subfolder of `test/`, for all classes of the model, in its order.
    """

    folder: Path
    folders: dict[str, str]
    _lock: Lock = field(default_factory=Lock, repr=False)

    def keep(self, name: str, content: bytes) -> KeptGlyph:
        """Write a glyph, 784 bytes of an upright one with bright ink on black, as a picture of a class.

        Its name is the digest of its pixels, so no other picture is overwritten. What was kept as another class is a
        slip: the last mark holds. Raises UsageProblem for another class or other bytes, and StageError where a link
        leads out of the folder.
        """
        if name not in self.folders:
            raise UsageProblem(f"the model has no class '{name[:20]}'")
        if len(content) != GLYPH_BYTES:
            raise UsageProblem(f"a glyph has {GLYPH_BYTES} bytes, not {len(content)}")
        glyph: NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(SIDE, SIDE)
        if not is_glyph(glyph):
            raise UsageProblem("these bytes are no glyph: bright ink on black with an empty frame")
        file = f"{hashlib.sha256(content).hexdigest()[:24]}.png"
        with self._lock:
            place = self._place(self.folders[name])
            others = {other: self._place(folder) / file for other, folder in self.folders.items() if other != name}
            before = [other for other, path in others.items() if path.is_file()]
            kept = KeptGlyph(f"test/{place.name}/{file}", not (place / file).is_file(), "".join(before[:1]))
            if kept.new:
                with whole_file(place / file) as part:
                    Image.fromarray(glyph).save(part, "PNG")
            for other in before:
                others[other].unlink()
                # Data refuses a folder without pictures, so an empty one goes; others hold more glyphs.
                with suppress(OSError):
                    others[other].parent.rmdir()
        return kept

    def count(self) -> int:
        """Return the number of glyphs in the folder."""
        return sum(1 for folder in self.folders.values() for _ in (self.folder / "test" / folder).glob("*.png"))

    def _place(self, name: str) -> Path:
        """Return the folder of a class; raises StageError where it, or `test/`, is a link or no folder."""
        place = self.folder / "test" / name
        for each in (place.parent, place):
            if each.is_symlink() or (each.exists() and not each.is_dir()):
                raise StageError(f"{each} is a link or no folder; remove it, glyphs are kept in plain folders alone")
        return place


def open_glyph_folder(folder: Path, classes: Iterable[str]) -> GlyphFolder:
    """Return the folder that keeps glyphs of these classes, made if it is not there.

    Raises UsageProblem where it holds anything else, glyphs of other classes too.
    """
    folders = {name: _folder_name(number, name) for number, name in enumerate(classes)}
    path = folder / CLASS_LIST
    if path.is_file():
        if list(listed_classes(folder).items()) != list(folders.items()):
            raise UsageProblem(f"{folder} keeps glyphs of other classes than this model's; give another folder")
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageProblem(f"{folder} is neither empty nor of an earlier kiosk; give a new folder to --save")
    else:
        write_whole(path, json_text(folders, indent=2) + "\n")
    return GlyphFolder(folder, folders)


def _folder_name(number: int, name: str) -> str:
    """Return a name that every file system takes, and that differs from the others in more than case."""
    if len(name) == 1 and name.isascii() and name.isalnum():
        kind = "digit" if name.isdigit() else "upper" if name.isupper() else "lower"
        return f"{kind}_{name}"
    return f"class_{number}"
