"""ONNX whose windows are padded by rule or unevenly, and constants that operators read as inputs: back to torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.fixtures.checkpoint_files import DIGITS
from tests.fixtures.lazy import torch
from toolchain.checkpoint import forward, load

IMAGES = np.random.default_rng(5).random((6, 1, 28, 28), dtype=np.float32)
SHAPES = {"w": (6, 1, 3, 4), "n": (1,), "fc": (6, 10), "up": (1, 6, 4, 3)}


def net(folder: Path, nodes: str, *, nhwc: bool = False, opset: int = 13) -> Path:
    """Write a reader of glyphs: `nodes` make `maps` of `x`, then comes the mean of each map and a product."""
    shape = "28,28,1" if nhwc else "1,28,28"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    net (float[N,{shape}] image_in) => (float[N,10] scores) {{
        {"x = Transpose<perm=[0,3,1,2]>(image_in)" if nhwc else "x = Identity(image_in)"}
        {nodes}
        pooled = GlobalAveragePool(maps)
        {"flat = Flatten<axis=1>(pooled)" if "flat =" not in nodes else ""}
        scores = MatMul(flat, fc)
    }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, sizes in SHAPES.items():
        # Above zero, so that they do for the spread of a batch norm too.
        values = rng.uniform(0.1, 1.0, sizes).astype(np.float32) * np.float32(0.5)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def original(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = session.get_inputs()[0]
    return session.run(None, {asked.name: images.reshape(-1, *asked.shape[1:])})[0]


CONV = 'maps = Conv<auto_pad="{}", strides=[2,3]>(x, w)'
POOL = "c = Conv(x, w)  maps = {}(c)"
WINDOWS = {
    "row14-Conv SAME_UPPER": CONV.format("SAME_UPPER"),
    "row14-Conv SAME_LOWER": CONV.format("SAME_LOWER"),
    "row14-Conv VALID": CONV.format("VALID"),
    "row14-MaxPool": POOL.format('MaxPool<auto_pad="SAME_UPPER", kernel_shape=[4,3], strides=[3,2]>'),
    "row14-MaxPool of what is below zero": (
        'c = Conv(x, w)  b = Neg(c)  maps = MaxPool<auto_pad="SAME_LOWER", kernel_shape=[4,3], strides=[3,2]>(b)'
    ),
    "row14-AveragePool": POOL.format('AveragePool<auto_pad="SAME_LOWER", kernel_shape=[4,2], strides=[3,3]>'),
    "row14-AveragePool counts padding": POOL.format(
        'AveragePool<auto_pad="SAME_UPPER", kernel_shape=[4,2], strides=[2,2], count_include_pad=1>'
    ),
    "row14-ConvTranspose": 'maps = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, up)',
    "row14-pads uneven": "maps = Conv<pads=[0,1,2,0], strides=[2,2]>(x, w)",
    "row24-Squeeze": (
        "maps = Conv(x, w)  p = GlobalAveragePool(maps)  axes = Constant<value_ints=[2,3]>()  flat = Squeeze(p, axes)"
    ),
    "row24-ReduceSum": (
        "maps = Conv(x, w)  axes = Constant<value_ints=[3,2]>()  flat = ReduceSum<keepdims=0>(maps, axes)"
    ),
    "row24-Split": (
        "c = Conv(x, w)  sizes = Constant<value_ints=[2,4]>()  a, b = Split<axis=1>(c, sizes)"
        "  maps = Concat<axis=1>(b, a)"
    ),
    "row24-Tile": "s = Constant<value_ints=[1,1,2,1]>()  t = Tile(x, s)  maps = Conv(t, w)",
    "row11-BatchNormalization first": "b = BatchNormalization(x, n, n, n, n)  maps = Conv(b, w)",
}


@pytest.mark.parametrize(
    ("case", "nhwc"),
    [(case, False) for case in WINDOWS] + [("row14-Conv SAME_UPPER", True), ("row14-AveragePool", True)],
)
def test_such_a_graph_comes_back_to_torch_in_silence(
    case: str, nhwc: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = net(tmp_path, WINDOWS[case].replace("  ", "\n"), nhwc=nhwc)
    model = load(str(path), classes=DIGITS).model
    assert model.refusal == ""
    module = model.torch_module("test")
    with torch.no_grad():
        answer = module(torch.from_numpy(IMAGES)).numpy()
    assert capfd.readouterr() == ("", "")
    np.testing.assert_allclose(answer, original(path, IMAGES), rtol=1e-4, atol=1e-5)
    assert any(isinstance(part, torch.nn.Linear) for part in module.modules()), "a product with weights is a layer"


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_row14_the_float_file_keeps_numbers_in_place_of_the_rule(opset: int, tmp_path: Path) -> None:
    from toolchain.checkpoint import normalised

    path = net(tmp_path, CONV.format("SAME_UPPER"), nhwc=True, opset=opset)
    made = normalised(path, 10)
    assert "auto_pad" not in str(made.graph)
    np.testing.assert_allclose(
        forward(load(str(path), classes=DIGITS).model)(IMAGES), original(path, IMAGES), atol=1e-4
    )


def test_row14_a_keras_model_is_converted_to_tflite_and_pruned(tmp_path: Path, glyphpress: Callable[..., Any]) -> None:
    nodes = 'a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)\nmaps = Relu(a)'
    path = net(tmp_path, nodes, nhwc=True, opset=9)
    plain = ("--data", "builtin:digits", "--orientation", "upright")
    assert glyphpress("export", path, *plain, "-o", tmp_path / "net.tflite").code == 0
    done = glyphpress("prune", path, *plain, "--round-to", 1, "--ratio", "50%", "--epochs", 0, "-o", tmp_path / "s.pt2")
    assert (done.code, done.err) == (0, "")
    assert "6 to 3 channels" in done.out
