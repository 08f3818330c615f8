"""Weights that are moved to a file: the module answers as before, and what it reads can leave memory again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolchain.export.tflite import LARGE, DiskWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE = 2048
"""Of a weight: one alone is LARGE."""


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return sum(1024 * int(size) for size in re.findall(r"Rss(?:Anon|File):\s+(\d+)", status))


@pytest.fixture
def module() -> nn.Module:
    """Three layers, of which two share their weight, and one whose weight is read the other way round."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(4)))
    module[1].weight = module[0].weight
    module[2].weight = nn.Parameter(module[0].weight.detach().T)
    return module


def answer(module: nn.Module) -> Tensor:
    import torch

    with torch.no_grad():
        answer: Tensor = module(torch.ones(2, SIDE))
    return answer


def test_row56_a_module_answers_as_before_and_its_weights_leave_memory(module: nn.Module) -> None:
    before = answer(module)
    weights = DiskWeights(module)
    assert weights.size >= 2 * LARGE
    assert answer(module).equal(before)
    there = resident()
    weights.release()
    assert resident() < there - LARGE
    assert answer(module).equal(before)


def test_row56_tied_weights_stay_tied_and_what_is_written_stays(module: nn.Module) -> None:
    import torch

    weights = DiskWeights(module)
    with torch.no_grad():
        module[0].weight.zero_()
    assert not module[1].weight.any()
    assert module[2].weight.any()
    weights.release()
    assert module[0].weight.any(), "what a converter writes to a weight is not kept"


def test_row56_a_small_module_stays_in_memory() -> None:
    from torch import nn

    module = nn.Linear(256, 256)
    place = module.weight.data_ptr()
    DiskWeights(module).release()
    assert module.weight.data_ptr() == place
