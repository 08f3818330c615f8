"""What `inspect` says of files whose content is known."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import helper, numpy_helper
from rich.console import Console

from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.fixtures.checkpoint_files import graph, net_file
from tests.fixtures.lazy import torch
from tests.fixtures.small_models import integer_net
from toolchain import models
from toolchain.checkpoint.float_model import TorchModel
from toolchain.checkpoint.inspection import counted, inspect_file
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.core.errors import CheckpointError
from toolchain.report.inspection import show_inspection

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
    found = inspect_file(str(tmp_path / "net.pt2"))
    assert (found.macs, found.parameters) == (CONV_MACS + HEAD_MACS, PARAMETERS)


def test_torchscript_shows_its_tensors(net: Any, tmp_path: Path) -> None:
    torch.jit.trace(net, torch.zeros(1, 1, 28, 28)).save(str(tmp_path / "net.pt"))
    found = inspect_file(str(tmp_path / "net.pt"))
    assert (found.kind, found.macs, found.parameters) == ("torchscript", CONV_MACS + HEAD_MACS, PARAMETERS)


@pytest.mark.parametrize("options", [{}, {"nhwc": True}, {"batch": 4}, {"opset": 9}])
def test_an_onnx_file_counts_weights_and_products_of_one_image(options: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(graph(**options), tmp_path / "net.onnx")
    found = inspect_file(str(tmp_path / "net.onnx"))
    assert found.macs == 13 * 13 * 4 * 9 + 676 * 10
    assert found.parameters == 4 * 9 + 6760 + 10
    assert found.inputs[0].startswith("input float32 [")
    assert {layer.kind for layer in found.layers} >= {"Conv", "MatMul"}


def test_a_quantized_onnx_shows_its_scales(tmp_path: Path) -> None:
    made = graph()
    rng = np.random.default_rng(0)
    made.graph.initializer.extend(
        [
            numpy_helper.from_array(rng.integers(-100, 100, (4, 1, 3, 3)).astype(np.int8), "w_int8"),
            numpy_helper.from_array(np.full(4, 0.01, np.float32), "w_scale"),
            numpy_helper.from_array(np.zeros(4, np.int8), "w_zero"),
        ]
    )
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w_back"], axis=0))
    made.graph.node[1].input[1] = "w_back"
    del made.graph.initializer[0]
    made.metadata_props.add(key="glyphpress", value=json.dumps({"recipe": "static-int8"}))
    onnx.save(made, tmp_path / "q.onnx")
    found = inspect_file(str(tmp_path / "q.onnx"))
    (weight,) = found.quantized
    assert (weight.name, weight.dtype, weight.bytes, weight.scales, weight.zero_points) == ("w_int8", "int8", 36, 4, 4)
    assert found.macs == 13 * 13 * 4 * 9 + 676 * 10
    assert found.parameters == 4 * 9 + 6760 + 10
    assert found.metadata == {"recipe": "static-int8"}


def test_an_onnx_file_tells_what_the_integers_at_its_borders_stand_for(tmp_path: Path) -> None:
    found = inspect_file(str(integer_net(tmp_path / "integer.onnx")))
    assert found.inputs == ("image int8 [batch, 1, 28, 28] scale 0.00392157 zero point -128",)
    assert found.outputs == ("logits uint8 [batch, 10] scale 0.5 zero point 128",)


def test_our_own_checkpoint_is_counted_without_being_told_its_class(tmp_path: Path) -> None:
    module = models.build("cnn-small", 47)
    facts = {"model": "cnn-small", "classes": [str(number) for number in range(47)]}
    torch.save(facts | {"state_dict": module.state_dict()}, tmp_path / "m.pt")
    found = inspect_file(str(tmp_path / "m.pt"))
    assert found.parameters == sum(weight.numel() for weight in module.parameters())
    assert found.macs is not None
    model = TorchModel("m", Preprocess(), tuple(facts["classes"]), "", module.eval())
    assert counted(model) == (found.parameters, found.macs)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal of 80 columns", "log"])
def test_a_checkpoint_is_shown_with_its_whole_digest_and_its_facts_in_plain_words(
    terminal: bool, tmp_path: Path
) -> None:
    facts = {"classes": list("0123456789"), "preprocess": Preprocess().to_dict(), "options": {}, "odd": "x" * 1000}
    path = tmp_path / "m.pt"
    torch.save(facts | {"state_dict": {"weight": torch.zeros(10, 784)}}, path)
    found = inspect_file(str(path))
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, color_system=None, width=80)
    show_inspection(found, console)
    text = " ".join(written.getvalue().split())
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
