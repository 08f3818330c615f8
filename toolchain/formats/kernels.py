"""Kernel: what runs in place of an operator, and why not in integers; Diagnosis: why a file is slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.fresh_process import operators
from targets.session import Operator

AT_RUN_TIME = "its input is quantized in each inference"
EXPANDED = "its weights are expanded to float when the file is loaded"
FLOAT_WEIGHTS = "its weights are float: kept so, or of a kind that the quantizer leaves alone"
NO_KERNEL = "the runtime has no integer kernel for it"
LEFT = "the quantizer leaves it in float"
BETWEEN_FLOATS = "what it reads is float"


@dataclass(frozen=True)
class Kernel:
    """What runs in place of an operator of the file.

    layer: empty for an operator without weights. operator: as the runtime calls it. integer: whether it multiplies
    integers. reason: why it is float, or what else is to be known of it.
    """

    layer: str
    operator: str
    integer: bool
    reason: str = ""


class Diagnosis:
    """What a format finds out about one file; the file is opened when it is first asked for, and once."""

    def __init__(self, artifact: Artifact) -> None:
        """Take the file."""
        self.artifact = artifact

    @cached_property
    def operators(self) -> Sequence[Operator]:
        """What the usual runtime runs of the file, with the time of each; empty where it is built without profiler."""
        try:
            return operators(self.artifact, catalog.default_for(self.artifact.format))
        except RunFailed:
            return ()

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (of every format)
        """Return why it may be slower than `base`, a line each; raises RunFailed where the runtime refuses a file."""
        return []

    def computes_in_int8(self) -> bool:
        """Return whether layers multiply int8 by int8, rather than only store it."""
        return False

    def time_share(self, some: Sequence[Operator]) -> str:
        """Return `12% of the time`, the share that some of the operators take."""
        return f"{sum(one.ns for one in some) / max(1.0, sum(one.ns for one in self.operators)):.0%} of the time"


def listed(kinds: Counter[str]) -> str:
    """Return `Conv (2), Gemm (1)`."""
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
