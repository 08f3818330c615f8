"""Lets a user's code import its own modules, even if they are called like packages of glyphpress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

OWN = ("calibration", "targets", "toolchain")


@contextmanager
def users_modules(folder: Path | None = None) -> Iterator[None]:
    """Search `folder` first for modules that are imported inside the block, then the path as it is.

    Where that finds a module or package of the user's with one of our names, ours is out of sight meanwhile.
    """
    if folder:
        sys.path.insert(0, str(folder))
    theirs = {top for top in OWN if top in sys.modules and _is_the_users(top)}
    hidden = {name: module for name, module in sys.modules.items() if _top(name) in theirs}
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _top(name) in theirs]:
            del sys.modules[name]
        sys.modules.update(hidden)
        if folder:
            sys.path.remove(str(folder))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_the_users(top: str) -> bool:
    """Return whether the path leads to another module of this name than the one that runs."""
    found = PathFinder.find_spec(top)
    return found is not None and found.origin != sys.modules[top].__file__
