"""A few kills of the quick commands; `make kills` does 200 of all."""

from __future__ import annotations

import pytest

from tests.kills.run import kills

QUICK = ("quantize", "evaluate", "data fetch", "targets setup")


@pytest.mark.slow
def test_kills_leave_old_or_new_and_nothing_for_ever() -> None:
    done, faults = kills(10, seed=1, names=QUICK)
    assert faults == []
    assert sum(done[name] for name in QUICK) == 10
