"""The optimizer and the learning rate of a training, step by step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from toolchain.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import nn, optim

WARM_UP = 0.2
"""One-cycle: share of the steps in which the learning rate rises."""


class Optimization:
    """An optimizer and its schedule. After each backward pass comes `step`, after each epoch `end_epoch`."""

    def __init__(self, module: nn.Module, settings: TrainSettings, steps: int) -> None:
        """Take the module whose parameters are fitted, and the number of steps of an epoch."""
        self.optimizer = _optimizer(module, settings)
        self._plateau = _plateau(self.optimizer, settings) if settings.schedule == "plateau" else None
        self._schedule = None if self._plateau else _schedule(self.optimizer, settings, steps)

    @property
    def lr(self) -> float:
        """Return the learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Change the parameters by their gradients, and the learning rate."""
        self.optimizer.step()
        if self._schedule:
            self._schedule.step()

    def end_epoch(self, held_out_accuracy: float | None) -> None:
        """Lower the learning rate where it depends on the accuracy, and that did not rise for some epochs."""
        if self._plateau and held_out_accuracy is not None:
            self._plateau.step(held_out_accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`, of types that torch.load reads with weights_only."""
        schedule = self._plateau or self._schedule
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule.state_dict() if schedule else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a state of the same settings and parameters."""
        self.optimizer.load_state_dict(state["optimizer"])
        if schedule := self._plateau or self._schedule:
            schedule.load_state_dict(state["schedule"])


def _optimizer(module: nn.Module, settings: TrainSettings) -> optim.Optimizer:
    from torch import optim

    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    match settings.optimizer:
        case "sgd":
            return optim.SGD(module.parameters(), momentum=settings.momentum, **common)
        case "rmsprop":
            # Keras's smoothing; torch's own is 0.99.
            return optim.RMSprop(module.parameters(), alpha=0.9, momentum=settings.momentum, **common)
        case "adam":
            return optim.Adam(module.parameters(), **common)
        case _:
            return optim.AdamW(module.parameters(), **common)


def _schedule(optimizer: optim.Optimizer, settings: TrainSettings, steps: int) -> optim.lr_scheduler.LRScheduler | None:
    from torch.optim import lr_scheduler

    total = steps * settings.epochs
    match settings.schedule:
        case "one-cycle":
            # Its two phases need at least two steps, and of five torch divides by zero. A momentum that was asked for
            # stays as it is.
            return lr_scheduler.OneCycleLR(
                optimizer,
                settings.lr,
                total_steps=max(total, 2),
                # torch divides by the length of the first phase, which would be 0 where one step is a fifth of them.
                pct_start=math.nextafter(WARM_UP, 1) if total * WARM_UP == 1 else WARM_UP,
                cycle_momentum=settings.optimizer in ("adam", "adamw"),
            )
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, total)
        case "step":
            return lr_scheduler.StepLR(optimizer, settings.step_epochs * steps, settings.step_factor)
        case _:
            return None


def _plateau(optimizer: optim.Optimizer, settings: TrainSettings) -> optim.lr_scheduler.ReduceLROnPlateau:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    # torch lowers the rate in the epoch after `patience` epochs that were no better.
    patience = settings.plateau_epochs - 1
    return ReduceLROnPlateau(optimizer, "max", factor=settings.plateau_factor, patience=patience, threshold=0)
