"""A bounded branch of `where` keeps every answer to the bit, and is bounded only where that is certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.lazy import nn, torch
from toolchain.export.bounded import bounded

if TYPE_CHECKING:
    from torch import Tensor

BOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "below": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "above": lambda x: torch.where(x >= -1, (-x).exp(), 2 - x),
    "not": lambda x: torch.where(torch.logical_not(x < 2), x, 3 * (x + 1).exp()),
    "scaled": lambda x: torch.where(x * 2 < 1, (x * 2).exp2(), x),
    "divisor": lambda x: torch.where(x > 0.5, 1 / x, x + 7 / x),
    "both": lambda x: torch.where(x > 0, (-x).exp(), x.expm1()),
    "read-elsewhere": lambda x: torch.where(x > 0, x, x.exp()) + x.exp(),
    "twice": lambda x: torch.where(x > 0, torch.where(x > 1, x, x.exp()), x.exp()),
    "by-channel": lambda x: torch.where(x.mean(1, keepdim=True) > 0, x, x.mean(1, keepdim=True).exp() * x),
}
KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "another-tensor": lambda x: torch.where(x.flip(1) > 0, x, x.exp()),
    "turned-between": lambda x: torch.where(x > 0, x, x.exp().flip(1)),
    "summed-between": lambda x: torch.where(x > 0, x, x.exp().cumsum(1)),
    "multiple": lambda x: torch.where(x * 3 > 0, x, x.exp()),
    "equal": lambda x: torch.where(x == 0, x, x.exp()),
    "leaky": lambda x: torch.where(x > 0, x, x * 0.1),
}


def _programs(act: Callable[[Tensor], Tensor]) -> tuple[nn.Module, nn.Module, bool]:
    """Return a program's module as it is and bounded, and whether a clamp was put in."""

    class Acting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return act(x)

    plain, changed = (torch.export.export(Acting(), (torch.zeros(2, 64),)) for _ in range(2))
    changed = bounded(changed)
    return plain.module(), changed.module(), any("clamp" in node.name for node in changed.graph.nodes)


@pytest.mark.parametrize("form", [*BOUNDED, *KEPT])
def test_row1_every_answer_stays_the_same_to_the_bit(form: str) -> None:
    plain, changed, clamped = _programs((BOUNDED | KEPT)[form])
    images = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    images[0, :8] = torch.tensor([0.0, -0.0, 0.5, 1.0, 2.0, -1.0, float("inf"), float("-inf")])
    for scale in (1, 3, 60):
        torch.testing.assert_close(changed(images * scale), plain(images * scale), rtol=0, atol=0, equal_nan=True)
    assert clamped is (form in BOUNDED)


def test_row1_values_of_the_branch_not_taken_are_bounded() -> None:
    _, changed, _ = _programs(BOUNDED["below"])
    held = dict[str, float]()

    class Watched(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                held[n.name] = float(value.max())
            return value

    Watched(changed).run(torch.full((2, 64), 30.0))
    assert max(held.values()) == 30.0
