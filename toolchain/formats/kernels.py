"""Kernel: what a runtime runs for an operator, and why in float; Diagnosis: why a file is slow."""

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
LEFT_FLOAT = "the quantizer leaves it in float"
BETWEEN_FLOATS = "what it reads is float"


@dataclass(frozen=True)
class Kernel:
    """What the runtime runs for an operator of the file.

    layer: the layer's name, empty for an operator without weights. operator: the kind that the runtime runs, which may
    differ from the kind in the file. integer: whether it multiplies integers. reason: why it runs in float, or a remark
    on an integer kernel.
    """

    layer: str
    operator: str
    integer: bool
    reason: str = ""


class Diagnosis:
    """Why one file is slow. The file is opened once, when a method first needs it."""

    def __init__(self, artifact: Artifact) -> None:
        """Take the file."""
        self.artifact = artifact

    @cached_property
    def operators(self) -> Sequence[Operator]:
        """The operators that the format's default runtime runs, with their times; empty where it has no profiler."""
        try:
            return operators(self.artifact, catalog.default_for(self.artifact.format))
        except RunFailed:
            return ()

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (of every format)
        """Return why it may be slower than `base`, one line a reason; raises RunFailed where a file is refused."""
        return []

    def computes_in_int8(self) -> bool:
        """Return whether a layer multiplies int8 by int8, so that int8 is not only how weights are stored."""
        return False

    def time_share(self, selected: Sequence[Operator]) -> str:
        """Return the share of the time that some of the operators take, such as `12% of the time`."""
        total = sum(operator.ns for operator in self.operators)
        return f"{sum(operator.ns for operator in selected) / max(1.0, total):.0%} of the time"


def listed(kinds: Counter[str]) -> str:
    """Return the kinds with their counts, the most frequent first: `Conv (2), Gemm (1)`."""
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
