"""Weights moved to a file and norms folded into convolutions: the module answers as before, in less memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.lazy import nn, torch
from toolchain.export.tflite import LARGE, DiskWeights, fold_norms

if TYPE_CHECKING:
    from torch import Tensor


SIDE = 2048
"""Of a weight: one alone is LARGE."""


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return sum(1024 * int(size) for size in re.findall(r"Rss(?:Anon|File):\s+(\d+)", status))


@pytest.fixture
def module() -> nn.Module:
    """Three layers, of which two share their weight, and one whose weight is read the other way round."""
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(4)))
    module[1].weight = module[0].weight
    module[2].weight = nn.Parameter(module[0].weight.detach().T)
    return module


def logits(module: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = module(torch.ones(2, SIDE))
    return logits


def test_row56_a_module_answers_as_before_and_its_weights_leave_memory(module: nn.Module) -> None:
    before = logits(module)
    weights = DiskWeights(module)
    assert weights.size >= 2 * LARGE
    assert logits(module).equal(before)
    before_release = resident()
    weights.release()
    assert resident() < before_release - LARGE
    assert logits(module).equal(before)


def test_row56_tied_weights_stay_tied_and_what_is_written_stays(module: nn.Module) -> None:
    weights = DiskWeights(module)
    with torch.no_grad():
        module[0].weight.zero_()
    assert not module[1].weight.any()
    assert module[2].weight.any()
    weights.release()
    assert module[0].weight.any(), "what a converter writes to a weight is not kept"


def test_row56_a_small_module_stays_in_memory() -> None:
    module = nn.Linear(256, 256)
    address = module.weight.data_ptr()
    DiskWeights(module).release()
    assert module.weight.data_ptr() == address


def _module(form: str) -> nn.Module:
    """Return layers with norms of statistics that change every answer."""
    torch.manual_seed(0)
    first, norm = nn.Conv2d(1, 4, 3, bias=form == "bias"), nn.BatchNorm2d(4, affine=form != "plain")
    module: nn.Module = {
        "grouped": lambda: nn.Sequential(first, norm, nn.Conv2d(4, 4, 3, groups=2, padding="same"), nn.BatchNorm2d(4)),
        "flat": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 3, stride=2), nn.BatchNorm1d(4)),
        "one norm twice": lambda: nn.Sequential(first, norm, nn.Conv2d(4, 4, 3), norm),
        "one convolution twice": lambda: nn.Sequential(
            first, norm, second := nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), second, nn.BatchNorm2d(4)
        ),
        "tied": lambda: nn.Sequential(first, norm, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), norm),
        "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3), norm),
        "statistics of the batch": lambda: nn.Sequential(first, nn.BatchNorm2d(4, track_running_stats=False)),
    }.get(form, lambda: nn.Sequential(first, norm))()
    if form == "tied":
        module[4].weight = module[2].weight  # type: ignore[index]
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)  # type: ignore[union-attr]
            for each in layer.parameters():
                nn.init.uniform_(each, 0.5, 2)
    return module.eval()


@pytest.mark.parametrize(
    ("form", "norms"),
    [
        pytest.param(form, norms, id=f"row56-{form}")
        for form, norms in (
            ("bias", 0),
            ("no bias", 0),
            ("plain", 0),
            ("grouped", 0),
            ("flat", 0),
            ("one norm twice", 2),
            ("one convolution twice", 2),
            ("tied", 3),
            ("transposed", 1),
            ("statistics of the batch", 1),
        )
    ],
)
def test_folded_norms_leave_the_answers(form: str, norms: int) -> None:
    """A norm stays where more than one layer reads its tensors."""
    module = _module(form)
    images = torch.rand(1, 1, 28, 28)
    with torch.no_grad():
        expected = module(images)
        program = fold_norms(torch.export.export(module, (images,)), DiskWeights(module))
        folded = program.run_decompositions({}).module()(images)
        assert module(images).equal(expected), "the module itself does not change"
    assert sum("batch_norm" in str(node.target) for node in program.graph.nodes if node.op == "call_function") == norms
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)
