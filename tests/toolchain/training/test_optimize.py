"""Optimizers and schedules: the learning rate goes where the settings say, and continues from its state."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest

from tests.fixtures.lazy import blocks, torch
from toolchain.training.optimize import Optimization
from toolchain.training.settings import OPTIMIZERS, SCHEDULES, TrainSettings

STEPS = 4


def rates(settings: TrainSettings, accuracies: Sequence[float] = ()) -> list[float]:
    """Return the learning rate before each step, and after the last."""
    optimization = Optimization(blocks.Linear(), settings, STEPS)
    seen = []
    for epoch in range(settings.epochs):
        for _ in range(STEPS):
            seen.append(optimization.lr)
            optimization.step()
        optimization.end_epoch(accuracies[epoch] if accuracies else 0.5)
    return [*seen, optimization.lr]


def settings_of(**values: float | str) -> TrainSettings:
    return TrainSettings().changed(**{"epochs": 5, "lr": 0.1} | values)


def test_each_schedule_moves_the_rate_as_its_help_says() -> None:
    cycle = rates(settings_of(schedule="one-cycle"))
    assert max(cycle) == cycle[3] == pytest.approx(0.1)
    assert cycle[0] < 0.01
    assert cycle[-1] < 1e-3
    cosine = rates(settings_of(schedule="cosine"))
    assert cosine[0] == 0.1
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] == pytest.approx(0)
    steps = rates(settings_of(schedule="step", step_epochs=2))
    assert steps == pytest.approx([0.1] * 8 + [0.01] * 8 + [0.001] * 5)
    assert set(rates(settings_of(schedule="constant"))) == {0.1}


def test_plateau_halves_the_rate_when_the_accuracy_does_not_rise() -> None:
    settings = settings_of(schedule="plateau", plateau_epochs=2, epochs=6)
    seen = rates(settings, [0.5, 0.6, 0.6, 0.55, 0.7, 0.8])
    assert seen == pytest.approx([0.1] * 16 + [0.05] * 9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_state_continues_with_the_same_bits(optimizer: str, schedule: str) -> None:
    settings = TrainSettings().changed(optimizer=optimizer, schedule=schedule, epochs=3, plateau_epochs=None)
    module = blocks.Linear()
    whole = Optimization(module, settings, STEPS)
    _fit(module, whole, 7)
    resumed_module, state = copy.deepcopy(module), copy.deepcopy(whole.state_dict())
    resumed = Optimization(resumed_module, settings, STEPS)
    resumed.load_state_dict(state)
    _fit(module, whole, 5)
    _fit(resumed_module, resumed, 5)
    assert resumed.lr == whole.lr
    for one, other in zip(module.parameters(), resumed_module.parameters(), strict=True):
        assert torch.equal(one, other)


def _fit(module: torch.nn.Module, optimization: Optimization, steps: int) -> None:
    for step in range(steps):
        optimization.zero_grad()
        module(torch.full((2, 1, 28, 28), 0.1 * step)).square().mean().backward()
        optimization.step()
        if step % STEPS == STEPS - 1:
            optimization.end_epoch(0.5)
