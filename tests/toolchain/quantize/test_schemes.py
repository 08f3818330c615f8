"""The grid of schemes and formats: what there is runs and reads, what there is not is refused with the reason."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet
from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.fixtures.quantized import WAYS, optimized_ops, read
from toolchain.checkpoint.float_model import TorchModel
from toolchain.commands.quantize import quantize_file
from toolchain.core.context import RunContext
from toolchain.core.errors import PolicyError, StageError, UsageProblem
from toolchain.export import export
from toolchain.quantize import quantize
from toolchain.quantize.schemes import SCHEMES
from toolchain.quantize.weights import integers
from toolchain.recipe import Quantize, parse

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
SHRUNK: dict[tuple[Format, str], float] = {
    ("onnx", "static-int4"): 6.8,
    ("onnx", "weight-int8"): 3.55,
    ("onnx", "weight-int4"): 6.8,
    ("onnx", "float16"): 1.9,
    ("tflite", "dynamic-int4"): 6.8,
    ("tflite", "static-int4"): 6.8,
    ("tflite", "weight-int8"): 3.55,
    ("tflite", "weight-int4"): 6.8,
    ("tflite", "float16"): 1.9,
}
"""(format, scheme) -> how much smaller than float, at least; those that `test_quantize` leaves out."""


def test_every_scheme_is_made_or_refused_in_every_format() -> None:
    made, refused = {*WAYS, *SHRUNK}, {(kind, row.name) for row in SCHEMES.values() for kind in row.refused}
    assert made | refused == set(product(FORMATS, SCHEMES))
    assert not made & refused
    assert made == {(kind, row.name) for row in SCHEMES.values() for kind in row.formats}


@pytest.mark.parametrize("way", SHRUNK, ids="-".join)
def test_it_is_as_small_as_its_bits_and_reads_the_same(
    way: tuple[Format, str],
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    digits_test: Dataset,
) -> None:
    base, test = floats[way[0]], digits_test.images[:300]
    assert base.size / pressed[way].size > SHRUNK[way]
    before, after = read(base, test), read(pressed[way], test)
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.98
    assert np.abs(before - after).mean() < (0.025 if way[1].endswith("4") else 0.005) * np.ptp(before)


def test_onnx_weights_of_four_bits_run_on_the_kernels_of_eight(
    pressed: dict[tuple[Format, str], Artifact], tmp_path: Path
) -> None:
    small, whole = (Counter(optimized_ops(pressed["onnx", f"static-int{bits}"], tmp_path)) for bits in (4, 8))
    assert small == whole
    assert small["QLinearConv"] == 6
    assert small["QGemm"] == 1


@pytest.mark.parametrize("scheme", ["weight-int8", "weight-int4", "float16"])
def test_onnx_weights_that_are_small_in_the_file_alone_run_as_float_ones_do(
    scheme: str, pressed: dict[tuple[Format, str], Artifact], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    ran = [Counter(optimized_ops(one, tmp_path)) for one in (pressed["onnx", scheme], floats["onnx"])]
    assert ran[0] == ran[1]


def weight_scales(path: Path) -> list[np.ndarray]:
    graph = onnx.load(path).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    return [
        constants[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.empty(0)).dtype == np.int8
    ]


def test_onnx_weights_have_a_scale_for_each_channel_or_one_for_the_tensor(
    pressed: dict[tuple[Format, str], Artifact],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    digits_test: Dataset,
    tmp_path: Path,
) -> None:
    step = Quantize(scheme="static-int8", per_channel=False)
    whole = quantize(floats["onnx"], step, images, tmp_path / "tensor.onnx", recipe="x")
    assert [scale.size for scale in weight_scales(whole.path)] == [1] * 7
    assert all(scale.size > 1 for scale in weight_scales(pressed["onnx", "static-int8"].path))
    test = digits_test.images[:300]
    assert (read(whole, test).argmax(1) == read(floats["onnx"], test).argmax(1)).mean() > 0.98


def test_onnx_activations_are_signed_where_that_is_asked_for(
    floats: dict[Format, Artifact], images: CalibrationSet, digits_test: Dataset, tmp_path: Path
) -> None:
    made = quantize(
        floats["onnx"], Quantize(scheme="static-int8", activations="int8"), images, tmp_path / "s.onnx", recipe="x"
    )
    kinds = {one.data_type for one in onnx.load(made.path).graph.initializer}
    assert TensorProto.INT8 in kinds
    assert TensorProto.UINT8 not in kinds
    assert "QLinearConv" in optimized_ops(made, tmp_path)
    test = digits_test.images[:300]
    assert (read(made, test).argmax(1) == read(floats["onnx"], test).argmax(1)).mean() > 0.98


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        *(({"scheme": row.name}, kind, why) for row in SCHEMES.values() for kind, why in row.refused.items()),
        ({"scheme": "static-int8", "activations": "uint8"}, "tflite", "take int8 activations"),
        ({"scheme": "static-int8", "activations": "int8", "integer_io": True}, "onnx", "pixels are uint8"),
        ({"scheme": "dynamic-int8", "per_channel": False}, "tflite", "a scale for each channel"),
        ({"scheme": "static-int8", "reduce_range": True}, "tflite", "do not saturate"),
    ],
    ids=str,
)
def test_what_a_format_cannot_do_is_refused_when_the_recipe_is_read(
    settings: dict[str, Any], kind: Format, message: str, tmp_path: Path
) -> None:
    step = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    with pytest.raises(PolicyError) as refused:
        parse(f'name = "mine"\n[[steps]]\nkind = "quantize"\n{step}', "mine.toml")
    assert message in str(refused.value)
    other = "tflite" if kind == "onnx" else "onnx"
    assert f'set formats = ["{other}"]' in str(refused.value)
    parse(f'name = "mine"\nformats = ["{other}"]\n[[steps]]\nkind = "quantize"\n{step}', "mine.toml")
    # Nothing is read before: neither the file nor the images are there.
    with pytest.raises(UsageProblem) as asked:
        quantize_file(
            tmp_path / f"none.{kind}",
            Quantize.from_options(**settings),
            tmp_path / f"x.{kind}",
            data="none",
            context=RunContext(),
        )
    assert message in str(asked.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "float16", "per_channel": False}, "no scales"),
        ({"scheme": "weight-int4", "integer_io": True}, "`integer_io` needs"),
        ({"scheme": "static-int8-act16", "integer_io": True}, "`integer_io` needs"),
        ({"scheme": "dynamic-int8", "activations": "uint8"}, "leave `activations` out"),
        ({"scheme": "weight-int8", "reduce_range": True}, "leave `reduce_range` out"),
    ],
    ids=str,
)
def test_a_setting_that_a_scheme_has_no_use_for_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        Quantize.from_options(**settings)


def test_the_command_makes_what_it_can_and_says_in_one_line_what_it_cannot(
    glyphpress, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source = floats["onnx"].path
    done = glyphpress("quantize", source, "--scheme", "weight-int4", "--per-tensor", "-o", tmp_path / "a.onnx")
    assert done.code == 0
    assert "7." in done.out
    refused = glyphpress("quantize", source, "--scheme", "dynamic-int4", "-o", tmp_path / "b.onnx")
    assert refused.code == 2
    assert "dynamic kernels take only int8 weights" in refused.err
    useless = glyphpress("quantize", source, "--scheme", "float16", "--per-tensor", "-o", tmp_path / "b.onnx")
    assert useless.code == 2
    assert useless.err.strip().splitlines()[-1] == "glyphpress: float16 has no scales; leave --per-tensor out"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.onnx", "a.onnx.json"]


def exported(layers: list[Any], folder: Path, kind: Format) -> Artifact:
    from torch import nn

    model = TorchModel("own", Preprocess(), tuple("0123456789"), "0" * 64, nn.Sequential(*layers).eval())
    return export(model, kind, folder / f"own.float.{kind}")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_without_weights_is_refused(kind: Format, images: CalibrationSet, tmp_path: Path) -> None:
    from torch import nn

    bare = exported([nn.AvgPool2d((14, 5), stride=(14, 5)), nn.Flatten()], tmp_path, kind)
    for scheme in ("static-int8", "weight-int8"):
        step = Quantize.from_options(scheme=scheme)
        with pytest.raises(StageError, match="no layer with weights"):
            quantize(bare, step, images if step.calibrated else None, tmp_path / f"x.{kind}", recipe="x")


def test_what_stays_in_float_is_told_and_convolutions_of_one_channel_keep_eight_bits(
    images: CalibrationSet, tmp_path: Path
) -> None:
    import torch
    from torch import nn

    class Erf(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x)

    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), Erf(), nn.Conv2d(8, 4, 1), nn.ReLU()]
    exotic = exported([*layers, nn.Flatten(), nn.Linear(4 * 576, 10)], tmp_path, "onnx")
    made = quantize(exotic, Quantize(scheme="static-int4"), images, tmp_path / "x.onnx", recipe="x")
    assert "computed in float: Erf" in made.notes
    kinds = {tuple(one.dims): one.data_type for one in onnx.load(made.path).graph.initializer}
    assert kinds[8, 1, 3, 3] == TensorProto.INT8
    assert kinds[4, 8, 1, 1] == kinds[10, 4 * 576] == TensorProto.INT4


@given(arrays.arrays(np.float32, (3, 20), elements=st.floats(-4, 4, width=32)), st.sampled_from([4, 8]))
@example(np.full((3, 20), np.finfo(np.float32).tiny), 8)
@example(np.full((3, 20), np.float32(0.999)), 8)
def test_integers_are_within_half_a_step_where_nothing_is_clipped(weights: np.ndarray, bits: int) -> None:
    values, scale = integers(weights, bits, 0)
    limit = 2 ** (bits - 1) - 1
    # The scale is rounded to float32: the largest weight may lie 1e-7 beyond its own integer.
    inside = np.abs(weights) <= scale * (limit + 1e-4)
    assert np.abs(values).max() <= limit
    assert scale.shape == (3, 1)
    assert (np.abs(values * scale - weights) <= scale * 0.5001)[inside].all()
    assert bits == 4 or inside.all()


def test_four_bits_clip_for_the_least_error() -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (16, 400)).astype(np.float32)
    _, scale = integers(weights, 4, 0)
    widest = np.abs(weights).max(1, keepdims=True) / 7
    errors = [((np.rint(weights / one).clip(-7, 7) * one - weights) ** 2).sum() for one in (scale, widest)]
    assert errors[0] < 0.85 * errors[1]
