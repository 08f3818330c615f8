"""What `inspect` says of files whose content is known: the same MACs of a model in every form, and what is unknown."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.fixtures.checkpoint_files import graph, net_file
from tests.fixtures.lazy import blocks, torch
from tests.fixtures.small_models import integer_net
from toolchain import models
from toolchain.checkpoint.float_model import FloatModel, TorchModel
from toolchain.checkpoint.inspection import counted, inspect_file
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.core.errors import CheckpointError
from toolchain.export import export
from toolchain.report.model_tables import show_inspection

# Net: a 3x3 convolution of 1 to 8 channels with 13x13 outputs, its batch norm, and 1352 to 10.
CONV_MACS, HEAD_MACS = 13 * 13 * 8 * 9, 1352 * 10
PARAMETERS = 8 * 9 + 8 + 16 + 13520 + 10


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"{net_file(tmp_path)}:Net"


@pytest.fixture
def net(source: str) -> Any:
    return build_from(parse_source(source)).eval()


def test_a_state_dict_shows_its_tensors_and_with_the_class_its_layers(net: Any, source: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"state_dict": net.state_dict(), "epoch": 7}, path)
    bare, whole = inspect_file(str(path)), inspect_file(str(path), model=source)
    assert (bare.macs, bare.layers, bare.parameters) == (None, (), PARAMETERS)
    assert "--model" in bare.notes[0]
    assert whole.macs == CONV_MACS + HEAD_MACS
    assert [(layer.kind, layer.shape) for layer in whole.layers] == [
        ("Conv2d", (8, 13, 13)),
        ("BatchNorm2d", (8, 13, 13)),
        ("Linear", (10,)),
    ]
    assert whole.tensors[0].name == "head.weight"
    assert whole.tensors[0].bytes == 54080
    assert whole.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert whole.metadata == {"epoch": 7}


def test_a_torch_export_program_counts_the_same(net: Any, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 28, 28),)), tmp_path / "net.pt2")
    inspection = inspect_file(str(tmp_path / "net.pt2"))
    assert (inspection.macs, inspection.parameters) == (CONV_MACS + HEAD_MACS, PARAMETERS)


def test_torchscript_shows_its_tensors(net: Any, tmp_path: Path) -> None:
    torch.jit.trace(net, torch.zeros(1, 1, 28, 28)).save(str(tmp_path / "net.pt"))
    inspection = inspect_file(str(tmp_path / "net.pt"))
    assert (inspection.kind, inspection.macs, inspection.parameters) == (
        "torchscript",
        CONV_MACS + HEAD_MACS,
        PARAMETERS,
    )


@pytest.mark.parametrize("options", [{}, {"nhwc": True}, {"batch": 4}, {"opset": 9}])
def test_an_onnx_file_counts_weights_and_products_of_one_image(options: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(graph(**options), tmp_path / "net.onnx")
    inspection = inspect_file(str(tmp_path / "net.onnx"))
    assert inspection.macs == 13 * 13 * 4 * 9 + 676 * 10
    assert inspection.parameters == 4 * 9 + 6760 + 10
    assert inspection.inputs[0].startswith("input float32 [")
    assert {layer.kind for layer in inspection.layers} >= {"Conv", "MatMul"}


def test_a_quantized_onnx_shows_its_scales(tmp_path: Path) -> None:
    model = graph()
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(rng.integers(-100, 100, (4, 1, 3, 3)).astype(np.int8), "w_int8"),
            numpy_helper.from_array(np.full(4, 0.01, np.float32), "w_scale"),
            numpy_helper.from_array(np.zeros(4, np.int8), "w_zero"),
        ]
    )
    model.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w_back"], axis=0)
    )
    model.graph.node[1].input[1] = "w_back"
    del model.graph.initializer[0]
    model.metadata_props.add(key="glyphpress", value=json.dumps({"recipe": "static-int8"}))
    onnx.save(model, tmp_path / "q.onnx")
    inspection = inspect_file(str(tmp_path / "q.onnx"))
    (weight,) = inspection.quantized
    assert (weight.name, weight.dtype, weight.bytes, weight.scales, weight.zero_points) == ("w_int8", "int8", 36, 4, 4)
    assert inspection.macs == 13 * 13 * 4 * 9 + 676 * 10
    assert inspection.parameters == 4 * 9 + 6760 + 10
    assert inspection.metadata == {"recipe": "static-int8"}


def test_an_onnx_file_tells_what_the_integers_at_its_borders_stand_for(tmp_path: Path) -> None:
    inspection = inspect_file(str(integer_net(tmp_path / "integer.onnx")))
    assert inspection.inputs == ("image int8 [batch, 1, 28, 28] scale 0.00392157 zero point -128",)
    assert inspection.outputs == ("logits uint8 [batch, 10] scale 0.5 zero point 128",)


def test_our_own_checkpoint_is_counted_without_being_told_its_class(tmp_path: Path) -> None:
    module = models.build("cnn-small", 47)
    facts = {"model": "cnn-small", "classes": [str(number) for number in range(47)]}
    torch.save(facts | {"state_dict": module.state_dict()}, tmp_path / "m.pt")
    inspection = inspect_file(str(tmp_path / "m.pt"))
    assert inspection.parameters == sum(weight.numel() for weight in module.parameters())
    assert inspection.macs is not None
    model = TorchModel("m", Preprocess(), tuple(facts["classes"]), "", module.eval())
    assert counted(model) == (inspection.parameters, inspection.macs)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal of 80 columns", "log"])
def test_a_checkpoint_is_shown_with_its_whole_digest_and_its_facts_in_plain_words(
    terminal: bool, tmp_path: Path
) -> None:
    facts = {"classes": list("0123456789"), "preprocess": Preprocess().to_dict(), "options": {}, "odd": "x" * 1000}
    path = tmp_path / "m.pt"
    torch.save(facts | {"state_dict": {"weight": torch.zeros(10, 784)}}, path)
    inspection = inspect_file(str(path))
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, color_system=None, width=80)
    show_inspection(inspection, console)
    text = " ".join(output.getvalue().split())
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text.replace(" ", "")
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in text
    assert "orientation upright, scale 0-1" in text
    assert "{" not in text
    assert "(--json shows all)" in text


@pytest.mark.slow
def test_a_tflite_file_shows_layers_products_and_scales(net: Any, tmp_path: Path) -> None:
    import litert_torch
    from litert_quantizer import quantizer, recipe

    litert_torch.convert(net, (torch.zeros(1, 1, 28, 28),)).export(str(tmp_path / "f.tflite"))
    weights_only = quantizer.Quantizer(str(tmp_path / "f.tflite"), recipe.dynamic_wi8_afp32())
    weights_only.quantize().export_model(str(tmp_path / "q.tflite"))
    float_file, int8_file = (inspect_file(str(tmp_path / name)) for name in ("f.tflite", "q.tflite"))
    assert float_file.macs == int8_file.macs == CONV_MACS + HEAD_MACS
    assert float_file.quantized == ()
    assert any(tensor.dtype == "int8" and tensor.scales == 10 for tensor in int8_file.quantized)
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {layer.kind for layer in int8_file.layers} | {"CONV_2D"}


def test_the_command_prints_tables_or_one_object(glyphpress: Callable[..., Any], tmp_path: Path) -> None:
    onnx.save(graph(), tmp_path / "net.onnx")
    shown = glyphpress("inspect", tmp_path / "net.onnx")
    assert shown.code == 0
    assert "input float32 [N, 1, 28, 28]" in shown.out
    assert "6,796 an image" not in shown.out
    facts = json.loads(glyphpress("inspect", tmp_path / "net.onnx", "--json").out)
    assert (facts["schema"], facts["macs"]) == ("glyphpress/inspect/1", 13 * 13 * 4 * 9 + 6760)
    assert f"{facts['macs']:,} an image" in shown.out


@pytest.mark.parametrize("content", [b"", b"hello, I am a note", b"\x1c\0\0\0TFL3\xff\xff", b"PK\x03\x04cut"])
def test_what_is_no_model_is_one_line_and_exit_3(
    content: bytes, glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    shown = glyphpress("inspect", tmp_path / "file.bin")
    assert (shown.code, shown.out, shown.err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize("text", [b"Conv", b"input", b"glyphpress.note"])
@pytest.mark.parametrize("command", ["inspect", "evaluate", "export", "adopt"])
def test_row35_text_of_an_onnx_file_that_is_no_text_is_one_line(
    command: str, text: bytes, glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    model = graph()
    model.metadata_props.add(key="glyphpress.note", value="none")
    content = model.SerializeToString()
    assert text in content
    (tmp_path / "net.onnx").write_bytes(content.replace(text, text[:-1] + b"\xff"))
    options = {"export": ["-o", tmp_path / "out.onnx"], "inspect": []}.get(command, ["--data", "builtin:digits"])
    shown = glyphpress(command, tmp_path / "net.onnx", *options)
    assert (shown.code, shown.out, shown.err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize("command", ["inspect", "evaluate", "quantize", "adopt"])
def test_row35_a_name_in_a_tflite_file_that_is_no_text_is_one_line(
    command: str, floats: dict[Format, Artifact], glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    content = floats["tflite"].path.read_bytes()
    name = Interpreter(model_content=content).get_tensor_details()[1]["name"].encode()
    (tmp_path / "net.tflite").write_bytes(content.replace(name, name[:-1] + b"\xff"))
    options = {"quantize": ["--data", "builtin:digits", "-o", tmp_path / "out.tflite"], "inspect": []}
    shown = glyphpress(command, tmp_path / "net.tflite", *options.get(command, ["--data", "builtin:digits"]))
    assert (shown.code, shown.out, shown.err.count("\n")) == (3, "", 1)


def test_a_class_that_does_not_take_the_weights_is_an_error(net: Any, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of Wide"):
        inspect_file(str(tmp_path / "net.pt"), model=f"{tmp_path}/net.py:Wide")


# 28 rows of 28: heads of 4 x 7; what is read at the end is 10 x 28.
PROJECTIONS, ATTENTION, HEAD = 4 * 28 * 28 * 28, 2 * 28 * 28 * 28, 28 * 10
MACS = {
    "Attending": PROJECTIONS + ATTENTION + HEAD,
    "Encoding": PROJECTIONS + ATTENTION + 2 * 28 * 28 * 64 + HEAD,
    "Gated": 28 * (3 * 24 * 28 + 3 * 24 * 24) * 2 + 28 * 48 * 10,
    "Remembering": 28 * (4 * 32 * 28 + 4 * 32 * 32) + 32 * 10,
    "Functional": 28 * 28 * 16 + 28 * 16 + 26 * 26 * 4 * 9 + (28 + 26 * 26 * 4) * 10,
    "Upsampling": 28 * 28 * 4 * 9 + 57 * 57 * 4 * 10,
}


def model_of(name: str) -> FloatModel:
    torch.manual_seed(0)
    return TorchModel(name, Preprocess(), tuple("0123456789"), "0" * 64, getattr(blocks, name)().eval())


@pytest.mark.parametrize("name", MACS, ids=[f"row25-{name}" for name in MACS])
def test_products_are_counted_where_no_layer_makes_them(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    module: Any = model.module
    assert counted(model) == (sum(weight.numel() for weight in module.parameters()), MACS[name])
    batch = {0: torch.export.Dim("batch", min=1, max=99)}
    program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "m.pt2")
    assert inspect_file(str(tmp_path / "m.pt2")).macs == MACS[name]
    torch.jit.trace(module, torch.zeros(1, 1, 28, 28), check_trace=False).save(str(tmp_path / "m.ts"))
    assert inspect_file(str(tmp_path / "m.ts")).macs == MACS[name]
    assert inspect_file(str(export(model, "onnx", tmp_path / "m.onnx").path)).macs == MACS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Attending", "Upsampling"])
def test_row25_a_tflite_file_counts_the_same(name: str, tmp_path: Path) -> None:
    kind: Format = "tflite"
    assert inspect_file(str(export(model_of(name), kind, tmp_path / "m.tflite").path)).macs == MACS[name]


def test_row25_counting_is_quiet_and_leaves_torch_as_it_was() -> None:
    model = model_of("Remembering")
    before = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted(model)
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == before


def test_row25_an_attention_is_a_layer_with_all_of_its_weights() -> None:
    from toolchain.checkpoint.inspection import module_layers

    model = model_of("Attending")
    layers = {layer.name: layer for layer in module_layers(model.torch_module("counting"), "m").layers}
    assert layers["attention"].kind == "MultiheadAttention"
    assert layers["attention"].macs == PROJECTIONS + ATTENTION
    assert layers["attention"].parameters == 4 * (28 * 28 + 28)


def test_row25_what_cannot_be_counted_is_named_and_never_left_out_silently(tmp_path: Path) -> None:
    class Transformed(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported lazily
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(28 * 15, 10)

        def forward(self, image: Any) -> Any:
            return self.head(torch.fft.rfft(image).abs().flatten(1))

    model = TorchModel("fft", Preprocess(), tuple("0123456789"), "0" * 64, Transformed().eval())
    assert counted(model)[1] is None
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Strange", ["flat"], ["odd"], domain="mine"),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 1, 28, 28]), ("y", ["N", 10]))
    ]
    weight = numpy_helper.from_array(np.zeros((784, 10), np.float32), "w")
    proto = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
    )
    onnx.save(proto, tmp_path / "odd.onnx")
    inspection = inspect_file(str(tmp_path / "odd.onnx"))
    assert (inspection.macs, inspection.notes[-1]) == (None, "MACs of Strange cannot be counted, so there is no sum")
    assert next(layer.macs for layer in inspection.layers if layer.kind == "MatMul") == 7840
