"""Whether other work explains a slowdown: not where the earlier runs had as much of it, and it is large."""

from __future__ import annotations

import pytest

from tests.fixtures.saved_runs import BUSY, made_timings
from toolchain.profiling.busy_runs import Disturbance, is_explained

WORK = ("other processes kept  of  core busy",)
HOT = (" C",)
GIVEN = ("the system gave the core to others for  % of the time",)


def test_kinds_are_the_reasons_without_their_numbers() -> None:
    assert Disturbance.of(made_timings(1e5, **BUSY)) == Disturbance(WORK, 3.0)
    assert Disturbance.of(made_timings(1e5)).kinds == ()


@pytest.mark.parametrize(
    ("low", "before", "after", "explained"),
    [
        (1.6, [(WORK, 1.0)], [(WORK, 1.0)], False),
        (1.4, [(WORK, 1.0)], [(WORK, 1.0)], True),
        (1.6, [(WORK, 1.0)], [(WORK, 1.3)], True),
        (1.6, [(WORK, 0.2), (WORK, 1.3)], [(WORK, 1.3)], False),
        (1.6, [((), 0.1)], [(WORK, 1.0)], True),
        (1.6, [(WORK, 1.0)], [(WORK + GIVEN, 1.0)], True),
        (1.6, [(WORK + GIVEN, 1.0)], [(GIVEN, 1.0)], False),
        (9.0, [(WORK + HOT, 1.0)], [(HOT, 1.0)], True),
        (9.0, [], [(WORK, 1.0)], True),
        (1.1, [(WORK, 1.0)], [((), 0.0)], False),
    ],
)
def test_other_work_explains_what_it_can(
    low: float, before: list[tuple[tuple[str, ...], float]], after: list[tuple[tuple[str, ...], float]], explained: bool
) -> None:
    assert (
        is_explained(low, [Disturbance(*each) for each in before], [Disturbance(*each) for each in after]) is explained
    )
