"""Every output of the program about a model and images whose names are nasty: as lines, JSON, XML and Markdown."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from safetensors.numpy import save_file

from calibration.dataset import Split
from calibration.load import load
from targets.artifact import Artifact, file_sha256
from targets.metadata import describe, load_artifact, save_sidecar
from tests.conftest import Finished
from tests.fixtures.pages import check_page
from tests.fixtures.small_readers import described, linear_reader
from toolchain.cli.streams import escaped

# A link and a cleared screen, a line of its own that could be a command of a workflow, a turned direction, a C1
# control, a formula, markup of consoles, Markdown and mentions.
NASTY = "\x1b]8;;http:x\x07\x1b[2J\x1b[31m\r\n::error::BREAK\u202e\x9b\x7f=cmd()[bold]|@x`<b>$"
CLASSES = tuple(f"{digit}{NASTY}" for digit in range(10))
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# A line of the name's own, and one that a runner would obey.
BROKEN = re.compile(r"(?m)^\s*(::error::)?BREAK|^\s*::(?!\w+ (file=[^:,]*,line=1,)?title=glyphpress)")

A, T, S = (f"{kind[0]}{NASTY.replace('/', '')}.{kind[1:]}" for kind in ("aonnx", "ttflite", "ssafetensors"))

Run = Callable[..., Finished]
FILES = {
    "gate": ("g.xml", "g.sarif", "g.md", "g.json"),
    "ranges": ("r.svg", "r.json"),
    "profile": ("p.md", "p.csv"),
    "press": ("out/report.md", "out/report.json", "out/report.html"),
    "quantize": ("q.onnx.json",),
    "quantize .tflite": ("q.tflite.json",),
    "gate evidence": ("e.json",),
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and a folder of pictures."""
    folder = tmp_path_factory.mktemp("shown")
    # `explain` reads 256 training images beside the 512 on which the file was calibrated.
    splits: dict[Split, int] = {"train": 800, "test": 200}
    for split, count in splits.items():
        digits = load("builtin:digits", split)
        for place, (image, label) in enumerate(zip(digits.images[:count], digits.labels[:count], strict=True)):
            shelf = folder / "data" / split / CLASSES[int(label)]
            shelf.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.reshape(28, 28)).save(shelf / f"{place}.png")
    for name, step in ((A, 0.0), ("b.onnx", 0.02)):
        _renamed(linear_reader(folder / name, step=step))
    weights = {name: np.zeros(1, np.float32) for name in (f"conv{NASTY}.weight", "fc.weight")}
    metadata = {f"key{NASTY}": NASTY, "glyphpress": json.dumps({"model": NASTY, "history": [NASTY]})}
    save_file(weights, folder / S, metadata=metadata)
    return folder


def _renamed_tflite(path: Path, to: Path) -> None:
    from toolchain.formats.tflite.file import packed, unpacked

    model = unpacked(path.read_bytes())
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.name = tensor.name.decode() + NASTY
    graph.name, model.description = NASTY, NASTY
    to.write_bytes(packed(model, path.stat().st_size))
    made = Artifact(to, "tflite", file_sha256(to), *describe(to), load_artifact(path).preprocess, CLASSES)
    save_sidecar(replace(made, notes=(NASTY,), tools={NASTY: NASTY}))


def _renamed(path: Path) -> None:
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"{node.op_type}{NASTY}"
        node.output[:] = [name if name == "logits" else f"{name}{NASTY}" for name in node.output]
        node.input[:] = [name if name == "image" else f"{name}{NASTY}" for name in node.input]
    for weight in model.graph.initializer:
        weight.name += NASTY
    model.producer_name = NASTY
    model.metadata_props.add(key=f"key{NASTY}", value=NASTY)
    onnx.save(model, path)
    described(path, CLASSES)


COMMANDS = {
    "inspect": "inspect A",
    "data check": "data check data",
    "evaluate": "evaluate A --data data",
    "inspect .tflite": "inspect T",
    "inspect .safetensors": "inspect S",
    "no such keys": "export S --model cnn-small --classes 0123456789 -o no.onnx",
    "evaluate .tflite": "evaluate T --data data",
    "quantize .tflite": "quantize T --data data --scheme static-int8 --save-ranges rt.json -o q.tflite",
    "explain .tflite": "explain T q.tflite --data data",
    "profile .tflite": "profile T --per-op",
    "gate evidence": "gate --baseline A --candidate T --data data --policy smoke --evidence e.json",
    "compare": "compare A b.onnx --data data",
    "quantize": "quantize A --data data --scheme static-int8 --save-ranges r.json -o q.onnx",
    "ranges": "ranges r.json -o r.svg",
    "explain": "explain A q.onnx --data data",
    "profile": "profile A q.onnx --runs 3 --seconds 1ms -o p.npz --markdown p.md --csv p.csv",
    "report of timings": "report p.npz",
    "profile --per-op": "profile A --per-op",
    "profile --threads": "profile A --sweep-threads 1,2 --runs 3 --seconds 1ms",
    "gate": "gate --baseline A --candidate b.onnx --data data --policy smoke "
    "--junit g.xml --sarif g.sarif --markdown g.md --verdict g.json",
    "gate baseline": "gate baseline A --data data --policy smoke -o base.npz",
    "press": "press A --data data --orientation upright --scale 0-1 --format onnx --recipe dynamic-int8 "
    "--policy smoke --out out",
    "report": "report out",
    "export": "export A -o e.ort",
    "no file": "inspect NASTY.onnx",
    "no target": "profile A --target NASTY",
    "no recipe": "press A --data data --recipe NASTY --out other",
    "no data": "evaluate A --data NASTY",
    "no option": "evaluate A --NASTY",
    "no command": "NASTY",
}

MADE_BY = {
    "q.onnx": "quantize",
    "r.json": "quantize",
    "q.tflite": "quantize .tflite",
    "p.npz": "profile",
    "out": "press",
}
"""File that other commands read -> the command that makes it."""


@pytest.mark.parametrize("name", COMMANDS)
def test_row30_no_output_obeys_a_name(
    name: str, room: Path, glyphpress: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(room)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    words = _words(name, room, glyphpress, request)
    done = glyphpress(*words)
    assert done.code in ({0, 1, 5} if not name.startswith("no ") else {2, 3, 4}), done.err
    for said in (done.out, done.err):
        # As the program's streams write it to a terminal.
        _check(escaped(said, colours=True))
    for written in FILES.get(name, ()):
        _read(room / written)
    if name == "gate":
        _check((room / "summary.md").read_text())
    if done.code in {0, 1, 5}:
        again = glyphpress(
            *words, "--json", *(("--force",) if "-o" in words or "--out" in words or name.startswith("gate") else ())
        )
        # Above it may stand what a converter printed, which pytest's stdout keeps from its log.
        document = again.out.splitlines()[-1]
        assert json.loads(escaped(document)) == json.loads(document)
        _check(escaped(document))


def _words(name: str, room: Path, glyphpress: Run, request: pytest.FixtureRequest) -> list[str]:
    """Return the command after the files that it reads are made: a test may run alone."""
    named = {"A": A, "T": T, "S": S}
    words = [named.get(word, word.replace("NASTY", NASTY)) for word in COMMANDS[name].split()]
    if T in words and not (room / T).exists():
        _renamed_tflite(request.getfixturevalue("floats")["tflite"].path, room / T)
    for file, maker in MADE_BY.items():
        if file in words and maker != name and not (room / file).exists():
            done = glyphpress(*_words(maker, room, glyphpress, request))
            assert done.code in {0, 1, 5}, done.err
    is_made = any(file in words and maker == name and (room / file).exists() for file, maker in MADE_BY.items())
    return [*words, *["--force"] * is_made]


def _check(text: str) -> None:
    assert not (mark := CONTROLS.search(text)), text[max(0, mark.start() - 80) : mark.start() + 20]
    assert not (line := BROKEN.search(text)), text[max(0, line.start() - 80) : line.start() + 40]


def _read(path: Path) -> None:
    text = path.read_text()
    if path.suffix in {".json", ".sarif"}:
        json.loads(text)
        assert not (mark := CONTROLS.search(text)), text[max(0, mark.start() - 80) : mark.start() + 20]
        return
    if path.suffix in {".xml", ".svg"}:
        ET.fromstring(text)
    if path.suffix == ".html":
        check_page(text)
    _check(text)
    assert "BREAK" in text
