"""Starts the agent in the emulator: glyphpress is this machine's, every other package is the root's.

The folder that holds glyphpress may hold packages for this machine's processor too (site-packages does), so it is not
on the path there; run this file with `python -P`.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).parents[2]
OURS = ("glyphpress", "targets")


class OurPackages:
    """Finds the packages of OURS in HOME, and nothing else there."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`; modules inside a package are left to Python."""
        return PathFinder.find_spec(name, [str(HOME)], target) if path is None and name in OURS else None


if __name__ == "__main__":
    sys.meta_path.insert(0, OurPackages)
    runpy.run_module("targets.agent.serve", run_name="__main__", alter_sys=True)
