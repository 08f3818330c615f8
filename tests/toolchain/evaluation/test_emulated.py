"""The shipped model in int8 on an emulated Raspberry Pi: every one of 1,000 real images is answered as here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.load import load
from targets import catalog
from tests.fixtures.emulated import emulated
from toolchain.checkpoint import CheckpointRequest
from toolchain.commands.export import export_checkpoint
from toolchain.commands.quantize import quantize_file
from toolchain.core.context import RunContext
from toolchain.evaluation.evaluate import evaluate
from toolchain.recipe import Quantize

IMAGES = 1000


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "processor"), [("onnx", "cortex-a72"), ("tflite", "cortex-a76")])
def test_int8_reads_every_image_as_the_host_does(kind: str, processor: str, emnist_root: Path, tmp_path: Path) -> None:
    data = f"{emnist_root / 'resplit'}:balanced"
    source = export_checkpoint("cnn-small", CheckpointRequest(), tmp_path / f"float.{kind}", context=RunContext())
    artifact = quantize_file(
        source.path, Quantize(scheme="static-int8"), tmp_path / f"int8.{kind}", data=data, context=RunContext()
    )
    whole = load(data, "test")
    test = whole.take(np.random.default_rng(0).choice(len(whole), IMAGES, replace=False), "1,000 of them")
    with emulated(processor).open(artifact) as there, catalog.default_for(artifact.format).open(artifact) as here:
        emulated_, own = evaluate(there, test), evaluate(here, test)
    assert np.array_equal(emulated_.logits, own.logits), "to the bit"
    assert emulated_.accuracy == own.accuracy > 0.8
