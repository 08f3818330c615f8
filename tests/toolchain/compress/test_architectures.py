"""Networks of the kinds that people bring are pruned, converted and quantized, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import draw
from targets.artifact import Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import architectures
from toolchain.checkpoint.float_model import FloatModel, TorchModel, forward
from toolchain.compress.prune import prune
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.recipe import Prune, Quantize

NAMES = (
    *("attention of channels and pixels", "depthwise and grouped", "GELU, SiLU, Hardswish, PReLU", "class token"),
    *("324 positions", "GroupNorm and InstanceNorm", "LSTM and GRU", "binary weights", "shared weights"),
)
HALF = Prune(ratio=0.5, epochs=0)
REFUSED = {"LSTM and GRU": "it joins outputs whose channels are not known, such as recurrent ones"}
LEAST_DB = {"324 positions": 18.0}
"""SQNR of the logits where it is less than 28 dB: untrained attention adds the same to every answer."""


def model_of(name: str) -> FloatModel:
    return TorchModel("net", Preprocess(), tuple("0123456789"), "0" * 64, architectures.seeded(name))


def test_all_of_them_are_tested() -> None:
    assert set(NAMES) == set(architectures.ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_channels_go_or_it_is_said_why_not(name: str, digits: Dataset) -> None:
    model = model_of(name)
    if name in REFUSED:
        with pytest.raises(StageError, match=REFUSED[name]):
            prune(model, HALF, digits, context=RunContext(threads=1))
        return
    pruned = prune(model, HALF, digits, context=RunContext(threads=1))
    before, after = (sum(p.numel() for p in one.torch_module("the test").parameters()) for one in (model, pruned))
    assert after < 0.9 * before
    logits = forward(pruned)(np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32))
    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_both_formats_and_their_integers_answer_as_the_module_does(name: str, digits: Dataset, tmp_path: Path) -> None:
    model, images = model_of(name), draw(digits, 48, seed=0)
    for kind in ("onnx", "tflite"):
        assert kind in get_args(Format)
        # An export compares its file with the module, and a quantization with the float file.
        source = export(model, kind, tmp_path / f"float.{kind}")
        made = quantize(source, Quantize(scheme="static-int8"), images, tmp_path / f"int8.{kind}", recipe="static-int8")
        assert made.fidelity is not None
        assert made.fidelity.sqnr_db is not None
        assert made.fidelity.sqnr_db > LEAST_DB.get(name, 28.0), (kind, made.fidelity)
        # Recurrent layers of TFLite are written out row by row, so that their scales take more than their weights.
        assert made.size < source.size or name == "LSTM and GRU"
