"""Large libraries, imported when a test first uses them, so that collecting the tests takes no seconds of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazy:
    """A module that is imported when something in it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for `__test__` and the like in everything that a module names
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


torch = Lazy("torch")
nn = Lazy("torch.nn")
functional = Lazy("torch.nn.functional")
optimize = Lazy("scipy.optimize")
stats = Lazy("scipy.stats")
metrics = Lazy("sklearn.metrics")
blocks = Lazy("tests.toolchain.blocks")
