"""Recognises result files of glyphpress by their schema, where a model or another result is expected."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from targets.host.text import argument

_HEAD = 4096
"""Bytes that are read: the schema is at the start of each result file (with 4 bytes per letter in an `.npz`)."""
_SCHEMA = re.compile(rb'^\s*\{\s*"schema": ?"glyphpress/([a-z-]+)/\d+"')
_DESCRIPTIONS = {
    "artifact": "is the sidecar of a model; give {model}",
    "report": "is the report of a press; `glyphpress report {path}` shows it",
    "timings": "holds stored timings; `glyphpress report {path}` shows them, and compares those of several files",
    "evaluation": "is a saved evaluation; `glyphpress compare` takes it, and `gate` as --baseline or --candidate",
    "baseline": "is a stored baseline; `glyphpress gate --baseline {path}` takes it",
    "evidence": "is stored evidence; `glyphpress gate --from {path}` judges it",
    "verdict": "is a stored verdict; give the model that it judges",
    "ranges": "holds ranges of activations; `glyphpress ranges {path}` shows them, `quantize --ranges` takes them",
}


def result_kind(path: Path) -> str:
    """Return the kind of result in a file, by the name of its schema; an empty string for any other file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as packed, packed.open("meta.npy") as stream:
                # After numpy's header comes text with 4 bytes per letter.
                _, _, head = stream.read(_HEAD).replace(b"\0", b"").partition(b"\n")
    except (OSError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        return ""
    schema = _SCHEMA.match(head)
    return schema[1].decode() if schema else ""


def instead_of(path: Path, *expected: str) -> str:
    """Return what a result file is and which command takes it; an empty string for `expected` kinds and other files."""
    kind = result_kind(path)
    if not kind or kind in expected:
        return ""
    description = _DESCRIPTIONS.get(
        kind, f"is what `glyphpress {kind} --json` printed; give the file that it describes"
    )
    return description.format(
        path=argument(path), model=path.with_suffix("") if path.suffix == ".json" else "the model"
    )
