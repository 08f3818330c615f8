"""Kernel: what a layer or operator of a file runs in, and why not in integers."""

from __future__ import annotations

from dataclasses import dataclass

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
