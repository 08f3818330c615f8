"""Starts the program and the Python API with their own packages, whatever modules of their names stand on the path."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

OWN = ("calibration", "targets", "toolchain")
"""Top packages that `PYTHONPATH`, or the folder of a script, may have modules of the same name for."""
_BESIDE = Path(__file__).parents[1]


def import_own() -> None:
    """Import the packages of OWN that stand beside this one, and none of the user's.

    Raises ImportError, which names the file, where a module of the user's with such a name was imported before.
    """
    for name in OWN:
        module = sys.modules.get(name)
        # A folder without __init__.py has no file.
        place = module and (getattr(module, "__file__", None) or next(iter(module.__path__), ""))
        if place and not _is_ours(place):
            raise ImportError(
                f"{place} is called like a package of glyphpress, and was imported before it; import "
                f"glyphpress and use it before `{name}`, or rename that file"
            )
    if all(name in sys.modules for name in OWN):
        return
    sys.path.insert(0, str(_BESIDE))
    try:
        for name in OWN:
            import_module(name)
    finally:
        sys.path.remove(str(_BESIDE))


def _is_ours(file: str) -> bool:
    return Path(file).resolve().parent.parent == _BESIDE.resolve()


def main() -> NoReturn:
    """Run the command line; exits with the codes of `glyphpress help exit-codes`."""
    import_own()
    from toolchain.cli.main import main as run

    run()
