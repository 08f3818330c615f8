"""The catalog of file formats: an explicit table; a format is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.artifact import Format
    from toolchain.formats.format import FileFormat

FORMATS = {
    "onnx": "toolchain.formats.onnx:OnnxFormat",
    "ort": "toolchain.formats.ort:OrtFormat",
    "tflite": "toolchain.formats.tflite:TfliteFormat",
}
"""Name -> "module:Class", in the order in which formats are listed."""


@cache
def get(name: str) -> FileFormat:
    """Return a format by its name; raises KeyError where there is none."""
    module, _, kind = FORMATS[name].partition(":")
    made: FileFormat = getattr(import_module(module), kind)()
    return made


def formats() -> tuple[FileFormat, ...]:
    """Return every format."""
    return tuple(map(get, FORMATS))


def of(path: Path) -> FileFormat | None:
    """Return the format that a file's name says, None where it says none."""
    name = path.suffix.removeprefix(".")
    return get(name) if name in FORMATS else None


def suffixes(some: Iterable[FileFormat], word: str) -> str:
    """Return how a sentence lists the suffixes of formats: `.onnx, .ort or .tflite`."""
    *others, last = [file_format.suffix for file_format in some]
    return f"{', '.join(others)} {word} {last}" if others else last


def readable() -> tuple[FileFormat, ...]:
    """Return the formats whose graph can be read."""
    return tuple(file_format for file_format in formats() if not file_format.opaque)


def pressed() -> tuple[Format, ...]:
    """Return the names of the formats that a press can make."""
    return tuple(file_format.name for file_format in formats() if file_format.pressed)
