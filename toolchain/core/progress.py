"""How a long stage reports its progress, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`, called by stages; a `total` of 0 means unknown. It must not raise."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Ignore all progress; the default of every stage."""
