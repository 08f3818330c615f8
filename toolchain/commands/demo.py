"""The main job on data that needs no download: train on the built-in digits, press, judge."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from calibration.load import load
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.files import refuse_folder, whole_file
from toolchain.export import installed_formats
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import Policy
from toolchain.recipe import shipped
from toolchain.report.report import Report
from toolchain.training.train import train

DATA = "builtin:digits"
RECIPES = ("dynamic-int8", "static-int8", "pruned-static-int8")
MARGIN = 0.02
"""A few hundred test images cannot decide a smaller drop: a single one of them is 0.17 percentage points."""


def demo(out: Path, context: RunContext | None = None) -> Report:
    """Train cnn-small on the built-in digits and press it into `out`; the trained model is left there as model.pt.

    Where litert-torch cannot be installed (it has x86-64 wheels only), only ONNX files are made.
    """
    context = context or RunContext()
    refuse_folder(out, force=context.force)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn-digits.pt"
        train(load(DATA, "train"), out=model, context=replace(context, force=False))
        request = PressRequest(
            checkpoint=str(model),
            data=DATA,
            recipes=tuple(shipped()[name] for name in RECIPES),
            formats=installed_formats(),
            policy=Policy.model_validate({"drop": DropLimit(max=MARGIN, confidence=0.95)}),
            command=("glyphpress", "demo"),
        )
        report = press(request, out, context)
        with whole_file(out / "model.pt", force=True) as part:
            # The temporary folder may lie on another disk.
            shutil.copyfile(model, part)
    return report
