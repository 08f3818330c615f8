"""Notes say what a quantization leaves in float, and recurrent weights are small in every ONNX scheme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, torch
from toolchain.checkpoint.float_model import TorchModel
from toolchain.export import export
from toolchain.quantize.schemes import SCHEMES

CLASSES = tuple("0123456789")


def exported(module: Any, kind: Format, folder: Path) -> Artifact:
    torch.manual_seed(0)
    model = TorchModel("net", Preprocess(), CLASSES, "0" * 64, module.eval())
    return export(model, kind, folder / f"net.float.{kind}")


@pytest.mark.parametrize("layer", ["GRU", "LSTM", "RNN"])
def test_row25_recurrent_weights_are_small_in_every_scheme(layer: str, glyphpress, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = exported(blocks.RecurrentRows(layer), "onnx", tmp_path)
    for scheme in ("static-int8", "dynamic-int8", "weight-int8", "float16"):
        share = {8: 0.45, 16: 0.65}[SCHEMES[scheme].weights]
        made = tmp_path / f"{scheme}.onnx"
        ran = glyphpress("quantize", source.path, "--scheme", scheme, "--data", "builtin:digits", "-o", made, "--json")
        assert ran.code == 0, ran.err
        facts = json.loads(ran.out)
        assert facts["bytes"] < share * source.size, scheme
        assert facts["fidelity"]["sqnr_db"] > 25, scheme
        assert not [note for note in facts["notes"] if "stay float32" in note]
        assert not [note for note in facts["notes"] if "Cast" in note]


@pytest.mark.parametrize(("kind", "operator"), [("onnx", "Mul"), ("tflite", "MUL")], ids=["onnx", "tflite"])
def test_row25_weights_that_stay_float_are_told_with_what_to_do(
    kind: Format, operator: str, glyphpress, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = exported(blocks.LinearByHand(), kind, tmp_path)
    arguments = ("quantize", source.path, "--scheme", "weight-int8", "--data", "builtin:digits")
    note = (
        f"99% of the weights stay float32, those of {operator}, which weight-int8 does not quantize; "
        "try --scheme static-int8, prune or distill the model, or build it with other layers"
    )
    ran = glyphpress(*arguments, "-o", tmp_path / f"a.{kind}")
    assert f"note: {note}" in ran.out.splitlines(), ran.err
    assert note in json.loads(glyphpress(*arguments, "-o", tmp_path / f"b.{kind}", "--json").out)["notes"]
    assert note in json.loads((tmp_path / f"a.{kind}.json").read_text())["notes"]


def test_a_healthy_file_has_no_such_note(pressed) -> None:
    for way in (("onnx", "static-int8"), ("onnx", "float16"), ("onnx", "static-int4")):
        assert not [note for note in pressed[way].notes if "stay float32" in note]


def test_row25_a_press_shows_it_below_its_table(glyphpress, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = exported(blocks.LinearByHand(), "onnx", tmp_path)
    arguments = ("--data", "builtin:digits", "--format", "onnx", "--recipe", "weight-int8", "--seconds", "1ms")
    policy = tmp_path / "any.toml"
    policy.write_text('[baseline]\nmin_accuracy = "0.1%"\n[drop]\nmax = "50pp"\n')
    ran = glyphpress("press", source.path, *arguments, "--policy", policy, "--out", tmp_path / "out")
    assert "net.weight-int8.onnx  99% of the weights stay float32, those of Mul" in ran.out, ran.err
