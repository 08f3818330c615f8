"""The score interval of a share."""

from __future__ import annotations

from toolchain.core.errors import EvidenceError
from toolchain.stats.decision import normal_quantile


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the two-sided 95 % score interval of a share (E. B. Wilson 1927, JASA 22:209-212)."""
    if count < 1 or not 0 <= right <= count:
        raise EvidenceError(f"{right} of {count} is not a share; evaluate at least one image")
    z = normal_quantile(0.975)
    share, shrink = right / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # At the ends the bound is exact; rounding must not change it.
    return 0.0 if right == 0 else centre - half, 1.0 if right == count else centre + half
