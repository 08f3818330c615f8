"""How a long stage says how far it is, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called by stages; `total` 0 means unknown. Raises nothing."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Listen to nothing: the default of every stage."""
