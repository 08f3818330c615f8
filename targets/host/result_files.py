"""Files of results that glyphpress wrote, told apart by their schema, where a model or another result is expected."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from targets.host.text import argument

_HEAD = 4096
"""Bytes that are looked at: a schema is the first thing in every file of ours (of 4 bytes a letter in an `.npz`)."""
_SCHEMA = re.compile(rb'^\s*\{\s*"schema": ?"glyphpress/([a-z-]+)/\d+"')
_WHAT = {
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
    """Return which result a file holds, as its schema names it; an empty string for anything else."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as packed, packed.open("meta.npy") as stream:
                # Text of 4 bytes a letter behind numpy's header.
                _, _, head = stream.read(_HEAD).replace(b"\0", b"").partition(b"\n")
    except (OSError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        return ""
    found = _SCHEMA.match(head)
    return found[1].decode() if found else ""


def instead_of(path: Path, *expected: str) -> str:
    """Return what a file of results is and what reads it; an empty string for `expected` ones and other files."""
    kind = result_kind(path)
    if not kind or kind in expected:
        return ""
    words = _WHAT.get(kind, f"is what `glyphpress {kind} --json` printed; give the file that it tells of")
    return words.format(path=argument(path), model=path.with_suffix("") if path.suffix == ".json" else "the model")
