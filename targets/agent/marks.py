"""Marks that a guest leaves for the emulator that counts its instructions: writes to descriptors that do not exist."""

from __future__ import annotations

import os
from contextlib import suppress

from targets.errors import RunFailed
from targets.session import RuntimeSession
from targets.target import Session

MARK = 1_000_000
"""A write to descriptor MARK + k is mark k; it fails with EBADF, which nobody minds."""
EMPTY = 5
"""So many pairs of marks with nothing between them tell what a mark costs."""
PASSES = 4
"""Only the last one counts: Python specialises its bytecode and runtimes settle their memory in those before."""


def marked(session: Session, runs: int, batch: int) -> list[str]:
    """Infer `runs` times on `batch` seeded images, between marks; return what stands between each two of the last ones.

    `empty` for nothing, `run` for one inference, in order.
    """
    if not isinstance(session, RuntimeSession):
        raise RunFailed(f"{session.facts.target} cannot be counted; take a runtime's own target")
    once = session.prepared(batch)
    plan = ["empty"] * EMPTY + ["run"] * runs
    for _ in range(PASSES):
        _mark(0)
        for index, what in enumerate(plan, 1):
            if what == "run":
                once()
            _mark(index)
    return plan


def _mark(index: int) -> None:
    with suppress(OSError):
        os.write(MARK + index, b"")
