"""Starts the program with its own packages, whatever modules of their names stand on the user's path."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

OWN = ("calibration", "targets", "toolchain")
"""Top packages that `PYTHONPATH`, or the folder of a script, may have modules of the same name for."""


def main() -> NoReturn:
    """Run the command line; exits with the codes of `glyphpress help exit-codes`."""
    beside = str(Path(__file__).parents[1])
    sys.path.insert(0, beside)
    try:
        for name in OWN:
            import_module(name)
    finally:
        sys.path.remove(beside)
    from toolchain.cli.main import main as run

    run()
