"""Float .onnx of any opset, layout and padding, brought into one form and back to torch, or refused with the reason."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets.preprocess import Preprocess
from tests.fixtures.checkpoint_files import DIGITS, graph
from tests.fixtures.lazy import torch
from toolchain.checkpoint import forward, load, normalised
from toolchain.checkpoint.onnx_torch import torchvision_importable
from toolchain.core.errors import CheckpointError, StageError

IMAGES = np.random.default_rng(5).random((16, 1, 28, 28), dtype=np.float32)


def saved(model: Any, folder: Path) -> Path:
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def original(path: Path, output: int = -1) -> np.ndarray:
    """Answers of the file as the user gave it, in its own layout and batch size."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    batch = image.shape[0] if isinstance(image.shape[0], int) else len(IMAGES)
    rest = image.shape[1:]
    parts = [IMAGES[at : at + batch].reshape(-1, *rest) for at in range(0, len(IMAGES), batch)]
    return np.concatenate([session.run(None, {image.name: part})[output] for part in parts])


def logits_of(proto: Any, images: np.ndarray = IMAGES) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


CASES = {
    **{f"opset {opset}": {"opset": opset} for opset in (9, 10, 11, 12, 13, 15, 17, 18, 20, 21)},
    "NHWC": {"nhwc": True},
    "NHWC opset 9": {"nhwc": True, "opset": 9},
    "flat": {"flat": True},
    "batch 1": {"batch": 1},
    "batch 8, NHWC": {"batch": 8, "nhwc": True, "opset": 13},
    "two outputs": {"features": True},
}


@pytest.mark.parametrize("case", CASES)
def test_any_float_classifier_becomes_one_form_with_the_same_answers(case: str, tmp_path: Path) -> None:
    path = saved(graph(**CASES[case]), tmp_path)
    proto = normalised(path, 10)
    onnx.checker.check_model(proto, full_check=True)
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["image", "logits"]
    assert [axes[0].dim_param, *(axis.dim_value for axis in axes[1:])] == ["batch", 1, 28, 28]
    assert next(entry.version for entry in proto.opset_import if not entry.domain) >= 13
    for images in (IMAGES, IMAGES[:1]):
        np.testing.assert_allclose(logits_of(proto, images), original(path)[: len(images)], atol=1e-4)


@pytest.mark.parametrize("opset", [9, 12, 13, 17])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_goes_and_the_decisions_stay(kind: str, opset: int, tmp_path: Path) -> None:
    path = saved(graph(opset=opset, softmax=kind), tmp_path)
    model = load(str(path), classes=DIGITS).model
    assert f"{kind} at the end removed" in model.history
    assert "oftmax" not in {node.op_type[-7:] for node in normalised(path, 10).graph.node}
    before = original(path) if kind == "Softmax" else np.exp(original(path))
    np.testing.assert_allclose(softmax(forward(model)(IMAGES)), before, atol=1e-4)


def test_an_nhwc_graph_loses_its_transpose(tmp_path: Path) -> None:
    assert "Transpose" not in {node.op_type for node in normalised(saved(graph(nhwc=True), tmp_path), 10).graph.node}


@pytest.mark.parametrize("case", ["opset 9", "NHWC", "batch 8, NHWC", "opset 21"])
def test_an_onnx_checkpoint_comes_back_to_torch_and_can_be_trained_and_traced(case: str, tmp_path: Path) -> None:
    path = saved(graph(**CASES[case]), tmp_path)
    loaded = load(str(path), classes=DIGITS)
    module = loaded.model.torch_module("pruning")
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(IMAGES)).numpy(), original(path), atol=1e-4)
    assert list(loaded.model.original.graph.node) == list(onnx.load(path).graph.node)
    module(torch.from_numpy(IMAGES)).sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())
    torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: torch.export.Dim("batch")},))


MANY, LEAST = 2**31 - 1, -(2**63)
BOUNDS = {
    "of two axes": {"starts": [2, -1], "ends": [26, LEAST], "axes": [2, 3], "steps": [1, -1]},
    "of all axes": {"starts": [0, 0, 2, -1], "ends": [MANY, MANY, 26, LEAST], "": None, "steps": [1, 1, 1, -1]},
}


@pytest.mark.parametrize("which", BOUNDS)
def test_crops_and_mirrors_come_back_to_torch(which: str, tmp_path: Path) -> None:
    """What onnx2torch makes of a Slice reads its bounds at every run, which no exporter of torch takes."""
    bounds = BOUNDS[which]
    weights = {"weight": np.random.default_rng(0).standard_normal((10, 24 * 28)).astype(np.float32)}
    model = helper.make_graph(
        [
            helper.make_node("Slice", ["image", *bounds], ["part"]),
            helper.make_node("Flatten", ["part"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight"], ["logits"], transB=1),
        ],
        "mirror",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, 28, 28))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 10))],
        [numpy_helper.from_array(np.array(value), name) for name, value in (bounds | weights).items() if name],
    )
    path = saved(helper.make_model(model, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path)
    module = load(str(path), classes=DIGITS).model.torch_module("pruning")
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(IMAGES)).numpy(), original(path), atol=1e-4)
    torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: torch.export.Dim("batch")},))


EXPORTS = {
    "legacy 11, dynamic": {"dynamo": False, "opset_version": 11, "dynamic_axes": {"x": {0: "b"}}},
    "legacy 17, fixed": {"dynamo": False, "opset_version": 17},
    "dynamo 18, dynamic": {"dynamo": True, "opset_version": 18, "dynamic_shapes": ({0: "b"},)},
    "dynamo 21, fixed": {"dynamo": True, "opset_version": 21},
}


@pytest.mark.parametrize("export", EXPORTS)
def test_what_torch_exported_comes_back_equal(export: str, tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        """Layers whose export differs between opsets and exporters."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
            self.norm = torch.nn.BatchNorm2d(4)
            self.head = torch.nn.Linear(4 * 49, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            hidden = torch.nn.functional.gelu(self.norm(self.conv(image)))
            hidden = torch.nn.functional.max_pool2d(hidden, 4)
            return self.head(hidden.view(hidden.size(0), -1)) + hidden.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]

    torch.manual_seed(0)
    net = Net().eval()
    options = EXPORTS[export] | ({"verbose": False} if EXPORTS[export]["dynamo"] else {})
    blank = torch.zeros(1 if "fixed" in export else 2, 1, 28, 28)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (blank,), str(tmp_path / "net.onnx"), input_names=["x"], **options)
    model = load(str(tmp_path / "net.onnx"), classes=DIGITS).model
    assert model.refusal == ""
    with torch.no_grad():
        np.testing.assert_allclose(forward(model)(IMAGES), net(torch.from_numpy(IMAGES)).numpy(), atol=1e-4)


def test_weights_beside_the_file_count_in_its_digest(tmp_path: Path) -> None:
    for seed in ("one", "other"):
        (tmp_path / seed).mkdir()
        model = graph()
        if seed == "other":
            model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((676, 10), np.float32), "fc"))
        onnx.save(model, tmp_path / seed / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    one, other = (tmp_path / seed / "net.onnx" for seed in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    digests = {load(str(path), classes=DIGITS).model.checkpoint_sha256 for path in (one, other)}
    assert len(digests) == 2
    (tmp_path / "one" / "w.bin").unlink()
    with pytest.raises(CheckpointError, match="weights are in another file"):
        load(str(one), classes=DIGITS)


def test_our_metadata_gives_classes_and_preprocess(tmp_path: Path) -> None:
    model = graph()
    model.metadata_props.add(
        key="glyphpress", value='{"classes": ["a","b","c","d","e","f","g","h","i","j"], "preprocess": {"invert": true}}'
    )
    loaded = load(str(saved(model, tmp_path)))
    assert (loaded.model.preprocess, loaded.model.classes) == (Preprocess(invert=True), tuple("abcdefghij"))


def test_an_operator_that_torch_cannot_take_leaves_a_reason_and_a_model_that_runs(tmp_path: Path) -> None:
    proto = graph()
    proto.graph.node[1].CopyFrom(helper.make_node("ThresholdedRelu", ["convolved"], ["image"], alpha=0.1))
    path = saved(proto, tmp_path)
    model = load(str(path), classes=DIGITS).model
    np.testing.assert_allclose(forward(model)(IMAGES), original(path), atol=1e-4)
    with pytest.raises(StageError, match=r"pruning needs the model in torch: onnx2torch cannot .*ThresholdedRelu"):
        model.torch_module("pruning")


def test_attention_with_a_computed_shape_is_refused_for_torch_or_comes_back_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(28, 2, 32, batch_first=True)
    net = torch.nn.Sequential(torch.nn.Flatten(1, 2), block, torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, 1, 28, 28),), str(tmp_path / "net.onnx"), dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "b"}}, opset_version=14,
        )  # fmt: skip
    model = load(str(tmp_path / "net.onnx"), classes=DIGITS).model
    assert (model.module is None) == bool(model.refusal)
    np.testing.assert_allclose(forward(model)(IMAGES), original(tmp_path / "net.onnx"), atol=1e-4)


def quantized() -> Any:
    model = graph()
    scale = [
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    model.graph.initializer.extend(scale)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]))
    model.graph.node[2].input[0] = "d"
    return model


def colour() -> Any:
    model = graph()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    return model


def double() -> Any:
    model = graph()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def two_inputs() -> Any:
    model = graph()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    return model


def fixed_inside() -> Any:
    model = graph(batch=4)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 10), np.float32), "four_rows"))
    model.graph.node[-1].input[1] = "four_rows"
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (quantized, "is quantized already (DequantizeLinear, QuantizeLinear)"),
        (colour, "takes input float ['N', 3, 28, 28]"),
        (double, "takes input double"),
        (two_inputs, "has 2 inputs (input, mask)"),
        (fixed_inside, "its batch axis is fixed; export it with a dynamic one"),
        (lambda: graph(classes=47), "answers 47 columns, but there are 10 classes"),
    ],
)
def test_graphs_that_cannot_be_pressed(make: Any, message: str, tmp_path: Path) -> None:
    path = saved(make(), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(str(path), classes=DIGITS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_onnx(tmp_path: Path) -> None:
    path = saved(graph(), tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        load(str(path), classes=DIGITS)
    path.write_text("not a graph")
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        load(str(path), classes=DIGITS)


def test_a_tflite_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(50))
    with pytest.raises(CheckpointError, match="TFLite artifact, which cannot be pressed"):
        load(str(tmp_path / "m.tflite"), classes=DIGITS)


def test_the_stand_in_for_torchvision_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("onnx2torch", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("toolchain.checkpoint.onnx_torch.find_spec", lambda _name: None)
    with torchvision_importable():
        assert "torchvision.ops" in sys.modules
    assert "torchvision" not in sys.modules


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
    np.testing.assert_allclose(answer, original(path), rtol=1e-4, atol=1e-5)
    assert any(isinstance(part, torch.nn.Linear) for part in module.modules()), "a product with weights is a layer"


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_row14_the_float_file_keeps_numbers_in_place_of_the_rule(opset: int, tmp_path: Path) -> None:
    path = net(tmp_path, CONV.format("SAME_UPPER"), nhwc=True, opset=opset)
    model = normalised(path, 10)
    assert "auto_pad" not in str(model.graph)
    np.testing.assert_allclose(forward(load(str(path), classes=DIGITS).model)(IMAGES), original(path), atol=1e-4)


def test_row14_a_keras_model_is_converted_to_tflite_and_pruned(tmp_path: Path, glyphpress: Callable[..., Any]) -> None:
    nodes = 'a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)\nmaps = Relu(a)'
    path = net(tmp_path, nodes, nhwc=True, opset=9)
    plain = ("--data", "builtin:digits", "--orientation", "upright")
    assert glyphpress("export", path, *plain, "-o", tmp_path / "net.tflite").code == 0
    run = glyphpress("prune", path, *plain, "--round-to", 1, "--ratio", "50%", "--epochs", 0, "-o", tmp_path / "s.pt2")
    assert (run.code, run.err) == (0, "")
    assert "6 to 3 channels" in run.out
