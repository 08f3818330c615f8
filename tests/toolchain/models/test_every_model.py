"""Every reference model goes the whole way: it trains, is pressed to both formats, and is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets.session import TimingPlan
from toolchain.commands import press as press_module
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import BaselinePin, Policy
from toolchain.models import names
from toolchain.recipe import Quantize, Recipe
from toolchain.training.settings import TrainSettings
from toolchain.training.train import train

ONE_THREAD = RunContext(threads=1)
TWO_STEPS = TrainSettings(epochs=1, batch=64, ema=0, augment=0, held_out=0)


# Most other tests press cnn-small.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name != "cnn-small"])
def test_every_model_trains_two_steps_is_pressed_and_is_judged(
    name: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The page's errors by layer take 4 s on 32 images of a large model.
    monkeypatch.setattr(press_module, "_EXPLAINED", 2)
    few = digits.take(np.arange(2 * TWO_STEPS.batch), "128 images")
    path, out = tmp_path / "model.pt", tmp_path / "out"
    train(few, model=name, settings=TWO_STEPS, out=path, context=ONE_THREAD)
    # After two steps a model reads little more than chance.
    request = PressRequest(
        checkpoint=str(path),
        data="builtin:digits",
        recipes=(Recipe(name="static-int8", steps=(Quantize(scheme="static-int8", calibration_images=20),)),),
        policy=Policy(drop=DropLimit(max=0.02), baseline=BaselinePin(min_accuracy=0.001)),
        plan=TimingPlan(warmup=1, min_runs=5, min_seconds=0.0, inner=1),
    )
    report = press(request, out, ONE_THREAD)
    assert len(report.rows) == 4
    assert all(row.outcome is not None for row in report.rows if not row.baseline)
    pressed = [row for row in report.rows if row.recipe == "static-int8"]
    assert {row.format for row in pressed} == {"onnx", "tflite"}
    assert all(row.shrink is not None and row.shrink > 1.5 for row in pressed)
    assert all(
        row.fidelity is not None and row.fidelity.sqnr_db is not None and row.fidelity.sqnr_db > 15 for row in pressed
    )
