"""The whole files that are damaged: small, real, made once for a run."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np

from calibration.load import load
from calibration.sample import draw
from targets.preprocess import Preprocess
from tests.fixtures.data_files import Halves, kaggle, matlab, parquet, with_header
from tests.fixtures.official_files import write_split
from tests.fixtures.reports import pressed_report
from tests.fixtures.small_readers import linear_reader
from tests.fuzz.program import run
from toolchain import models
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.export import export
from toolchain.export.ort_format import export_ort
from toolchain.models.saving import save
from toolchain.quantize import quantize
from toolchain.recipe import Quantize

IMAGES = {"train": 120, "test": 60}


def make(folder: Path) -> None:
    """Fill a folder with one whole file of every kind."""
    folder.mkdir(parents=True)
    halves: Halves = {}
    for split, count in IMAGES.items():
        data = load("builtin:digits", split)
        write_split(folder / "data", "digits", split, data.images[:count], data.labels[:count], suffix="")
        halves[split] = data.images[:count], data.labels[:count]
    (folder / "tables").mkdir()
    for write in (kaggle, with_header, matlab, parquet):
        write(folder / "tables", halves)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        _checkpoints(folder)
        _artifacts(folder)
    _evidence(folder)
    _pictures(folder / "pictures")
    (folder / "press").mkdir()
    pressed_report().save(folder / "press" / "report.json")


def _checkpoints(folder: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    facts = {
        "model": "cnn-small",
        "options": {"channels": [8, 8, 8, 8, 8]},
        "classes": list("0123456789"),
        "preprocess": Preprocess().to_dict(),
    }
    module = models.build("cnn-small", 10, channels=(8, 8, 8, 8, 8)).eval()
    for suffix in (".pt", ".safetensors"):
        save(folder / f"net{suffix}", module, facts)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    batch = {0: torch.export.Dim("n", min=1, max=4096)}
    program = torch.export.export(plain, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "net.pt2")
    torch.jit.save(torch.jit.trace(plain, torch.zeros(1, 1, 28, 28)), folder / "script.pt")


def _artifacts(folder: Path) -> None:
    model = settle(str(folder / "net.pt"), CheckpointRequest(), None).model
    images = draw(load("builtin:digits", "train"), 16, seed=0)
    whole = export(model, "onnx", folder / "net.onnx")
    export(model, "tflite", folder / "net.tflite")
    step, path = Quantize(scheme="static-int8"), folder / "int8.onnx"
    int8 = quantize(whole, step, images, path, recipe="static-int8", save_ranges=folder / "ranges.json")
    export_ort(int8, folder / "int8.ort")


def _evidence(folder: Path) -> None:
    """What a gate stores of a reader that reads well, and of the same one with rounded weights."""
    base, own = linear_reader(folder / "reader.onnx"), linear_reader(folder / "rounded.onnx", step=0.01)
    data, smoke = ("--data", "builtin:digits"), ("--policy", "smoke")
    for words in (
        ("profile", base, own, "--runs", 40, "--seconds", "1ms", "-o", folder / "timings.npz"),
        ("evaluate", base, *data, "-o", folder / "reader.npz"),
        ("gate", "baseline", base, *data, "-o", folder / "baseline.npz"),
        ("gate", "--baseline", base, "--candidate", own, *data, *smoke, "--evidence", folder / "gate.json"),
        ("gate", "init", "-o", folder / "gate.toml"),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(*words) in (0, 1, 5), words


def _pictures(folder: Path) -> None:
    from PIL import Image

    for label, width in (("0", 3), ("1", 9)):
        (folder / label).mkdir(parents=True)
        for count in range(6):
            pixels = np.full((40, 40), 255, np.uint8)
            pixels[5:35, 18 : 18 + width + count] = 0
            Image.fromarray(pixels).save(folder / label / f"{count}.png")
