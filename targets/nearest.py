"""What to answer an unknown name with."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 3
"""A longer list of names hides the one that was meant."""


def nearest(word: str, names: Iterable[str], otherwise: str, *, cutoff: float = 0.6) -> str:
    """Return the advice for an unknown name: the near ones, else `otherwise`, which says where all are.

    At most three names are given; as few as that are given whether they are near or not.
    """
    import difflib

    known = list(names)
    near = difflib.get_close_matches(word, known, n=MOST, cutoff=cutoff) or (known if len(known) <= MOST else [])
    return f"did you mean {', '.join(near)}?" if near else otherwise
