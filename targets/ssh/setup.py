"""Setting a board up: whatever layer is not there yet is pushed; again, it costs one round trip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from targets.errors import TargetUnavailable
from targets.ssh.address import Address
from targets.ssh.bundle import BoardFolder, agent_layer, wheels_layer
from targets.ssh.connection import board_facts, run_on_board


@dataclass(frozen=True)
class SetUp:
    """What a board has after it was set up. folders: the layers there; pushed: those that were not, and their bytes."""

    address: str
    python: str
    architecture: str
    home: str
    folders: tuple[str, ...]
    pushed: dict[str, int]

    def lines(self) -> list[str]:
        """Return what was pushed, a line each."""
        return [f"{self.address}: {name}, {size / 1e3:,.0f} KB" for name, size in self.pushed.items()]


def set_up(word: str, *, force: bool = False, progress: Callable[[str, int, int], None]) -> SetUp:
    """Push the agent and its wheels to a board; `force` pushes them over what is there.

    Each layer is verified by its digest there, and appears whole or not at all. Raises UnknownTarget,
    TargetUnavailable, or RunFailed with what ssh or the board said.
    """
    address = Address.parse(word.removeprefix("ssh:"))
    known = board_facts(address)
    layers = layers_for(known)
    missing = [layer for layer in layers if force or layer.name not in known["there"]]
    for done, layer in enumerate(missing):
        progress(f"pushing to {address}", done, len(missing))
        with layer.archive.open("rb") as stream:
            run_on_board(address, "take", layer.name, layer.sha256, source=stream)
    if missing:
        progress(f"pushing to {address}", len(missing), len(missing))
    pushed = {layer.name: layer.archive.stat().st_size for layer in missing}
    names = tuple(layer.name for layer in layers)
    return SetUp(str(address), known["python"], known["architecture"], known["home"], names, pushed)


def layers_for(known: dict[str, Any]) -> tuple[BoardFolder, BoardFolder]:
    """Return the layers that a board of these facts needs."""
    python = ".".join(known["python"].split(".")[:2])
    return agent_layer(), wheels_layer(python, known["architecture"])


def ready(address: Address) -> tuple[str, list[str]]:
    """Return the home and the layers of a board that is set up; raises TargetUnavailable where it is not."""
    known = board_facts(address)
    layers = layers_for(known)
    if not {layer.name for layer in layers} <= set(known["there"]):
        raise TargetUnavailable(f"{address}: not set up for this version; run `glyphpress targets setup {address}`")
    return known["home"], [layer.name for layer in layers]
