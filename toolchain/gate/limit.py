"""Limit: a table of a policy, what all of them share. Each has a file of its own in `limits`.

Shares and drops are fractions, sizes bytes, times seconds, ratios plain numbers; people write them with their units.
`confidence` is that of each one-sided decision: PASS and FAIL must both be shown at it, else INCONCLUSIVE.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolchain.gate.outcome import Action
from toolchain.written import Points

Measure = Literal["share", "cost", "bytes", "seconds", "ratio", "count"]
MOST = 2**31 - 1
"""Of a whole number: more images than any data set has."""
Confidence = Annotated[float, Field(gt=0.5, lt=1, description="of PASS and of FAIL, each shown one-sided")]


class Table(BaseModel):
    """One table of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(Table):
    """A table that a verdict is given on. measure: what its `measured` and `bound` count."""

    measure: ClassVar[Measure]
    action: Action = Field(default="fail", description="warn: tell, but let it through")


class MarginLimit(Limit):
    """A table that is decided by confidence bounds of a share: its margin, and their one-sided confidence."""

    measure: ClassVar[Measure] = "share"
    max: Points
    confidence: Confidence = 0.95
