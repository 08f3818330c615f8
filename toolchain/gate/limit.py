"""Limit: a table of a policy and what the gate knows of it. Each limit stands in a file of its own (`limits`).

Shares and drops are fractions, sizes bytes, times seconds, ratios plain numbers; people write them with their units.
`confidence` is that of each one-sided decision: PASS and FAIL must both be shown at it, else INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from toolchain.core.settings import Points
from toolchain.gate.outcome import Action, Verdict

Measure = Literal["share", "cost", "bytes", "seconds", "ratio", "count"]
MOST = 2**31 - 1
"""Of a whole number: more images than any data set has."""
Confidence = Annotated[float, Field(gt=0.5, lt=1, description="of PASS and of FAIL, each shown one-sided")]


class Table(BaseModel):
    """One table of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Limit(Table):
    """A table that a verdict is given on. measure: what its `measured` and `bound` count."""

    measure: ClassVar[Measure]
    action: Action = Field(default="fail", description="warn: tell, but let it through")


class MarginLimit(Limit):
    """A table that is decided by confidence bounds of a share: its margin, and their one-sided confidence."""

    measure: ClassVar[Measure] = "share"
    max: Points
    confidence: Confidence = 0.95


@dataclass(frozen=True)
class LimitDefinition:
    """All that the gate knows of one limit: the policy, its schema and template, and the gate are made from these.

    name: the policy's table. settings: what it holds. about, example: what the schema and the template say of it.
    judge: takes the settings and the parts of `Evidence` that `evidence` names, and gives the verdict.
    simulate: takes the settings and the counts lost, gained and all by class, int64 [draws, K], [draws, K] and [K],
    and gives an `Outcome` for each draw; None where right and wrong answers do not decide it.

    collect: takes the settings and the `candidate.Sources`, and gives the first of the parts; None where the gate
    collects it for all limits. prepare: takes the settings, a file, the test images or None, and the progress, and
    gives the file with what is read of it once. check_stored: takes the settings and a stored baseline, and raises
    EvidenceError where it was not made for them. check_classes: takes the settings and the names of the classes, and
    raises PolicyError where the settings name what is none of them.

    file_must, baseline_must: what the limit asks of the candidate's and of the baseline's file that a saved evaluation
    cannot do. images, training_images: whether it needs the test images, and those that the candidate was trained on.
    device: whether only a device has what it limits. always: judged without its table too, and then only a verdict that
    is no PASS counts; such a limit alone is no policy.
    """

    name: str
    settings: type[Limit]
    about: str
    example: Mapping[str, object]
    judge: Callable[..., Verdict]
    evidence: tuple[str, ...] = ("pairs",)
    simulate: Callable[..., NDArray[np.str_]] | None = None
    collect: Callable[..., object] | None = None
    prepare: Callable[..., Any] | None = None
    check_stored: Callable[..., None] | None = None
    check_classes: Callable[..., object] | None = None
    file_must: str = ""
    baseline_must: str = ""
    images: bool = False
    training_images: bool = False
    device: bool = False
    always: bool = False

    @property
    def timed(self) -> bool:
        """Whether it limits a latency."""
        return "timings" in self.evidence
