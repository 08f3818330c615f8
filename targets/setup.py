"""Making places ready: a board's bundle, or the root folder of the emulated processors."""

from __future__ import annotations

from collections.abc import Callable

from targets.catalog import address
from targets.errors import UnknownTarget


def set_up(word: str, *, force: bool = False, progress: Callable[[str, int, int], None]) -> list[str]:
    """Ready the place that a word names and return what was done, a line each; nothing where all was there.

    force: push a board's bundle again. Raises UnknownTarget for a place that needs no setting up, and what the setting
    up raises.
    """
    word = address(word)
    if word.startswith("ssh:"):
        from targets.ssh.setup import set_up as push

        return push(word, force=force, progress=progress).lines()
    if word.partition(":")[0] == "arm64":
        from targets.arm64.root import arm64_root

        return [f"root of the emulated processors: {arm64_root(progress)}"]
    raise UnknownTarget(f"{word} needs no setting up; ssh://[USER@]HOST and arm64:CPU do")
