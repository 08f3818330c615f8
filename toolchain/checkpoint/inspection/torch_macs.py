"""Multiply-accumulates of what torch runs, counted at its lowest operators as torch.utils.flop_counter does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

_COUNTED_NAMESPACES = ("aten", "prim", "prims", "profiler")
_LEFT_OUT = {
    "_cdist_forward", "_fft_c2c", "_fft_c2r", "_fft_r2c", "_int_mm", "_native_multi_head_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_transformer_encoder_layer_fwd", "linalg_inv_ex",
    "linalg_solve_triangular", "mkldnn_rnn_layer",
}  # fmt: skip
"""Operators that multiply much, and whose products nobody counts."""
_PRODUCTS: dict[str, Callable[[Any, Any], int]] = {
    "mv": lambda args, _: args[0].numel(),
    "addmv": lambda args, _: args[1].numel(),
    "dot": lambda args, _: args[0].numel(),
    "vdot": lambda args, _: args[0].numel(),
    "addbmm": lambda args, _: args[1].numel() * args[2].shape[-1],
    "_trilinear": lambda args, _: args[0].shape[0] * args[1].numel(),
    "conv_tbc": lambda args, made: made.numel() * prod(args[1].shape[:2]),
}
"""What torch's own table lacks, by an operator's arguments and what it gave."""


@dataclass
class MacCounts:
    """What ran. macs: by whoever stood last in `running` at the time. left_out: operators that nobody counts."""

    running: list[str] = field(default_factory=list)
    macs: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)

    def add(self, operator: Any, args: Any, kwargs: Any, made: Any, table: Any) -> None:
        """Count one call of an operator. table: torch's own, of two floating point operations a product."""
        packet = operator._overloadpacket
        name, namespace = packet.__name__, operator.namespace
        if packet in table:
            count = int(table[packet](*args, **kwargs, out_val=made)) // 2
        elif namespace == "aten" and name in _PRODUCTS:
            count = int(_PRODUCTS[name](args, made))
        else:
            if namespace not in _COUNTED_NAMESPACES or (namespace == "aten" and name in _LEFT_OUT):
                self.left_out.add(f"{namespace}::{name}")
            return
        self.macs[self.running[-1] if self.running else ""] += count


@contextmanager
def tally() -> Iterator[MacCounts]:
    """Count what runs in the block, without gradients; fused attention and recurrent layers run as their products."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    counts = MacCounts()

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            counts.add(func, args, kwargs or {}, made, flop_registry)
            return made

    counting: Any = Counting
    fused, kernels = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # What torch.backends.mkldnn.flags does, which warns of settings that nobody asked for.
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counting():
            yield counts
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch._C._set_mkldnn_enabled(kernels)
