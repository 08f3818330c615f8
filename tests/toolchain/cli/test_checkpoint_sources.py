"""Every form of checkpoint that docs/sources.md lists, from the file to the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.load import load
from tests.fixtures.small_readers import linear_reader
from tests.fixtures.their_checkpoints import FILES, SHAPES, Shape, reader, spec, write, write_data

MOST_CHANGED = 0.02
"""Share of answers that a scaling next to the model's own, or weights of eight bits, may change."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emnist")
    write_data(folder)
    return folder


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.file}, {shape.end}, {shape.form}")
def test_a_gate_judges_every_checkpoint_as_the_reader_that_it_is(
    shape: Shape, data: Path, tmp_path: Path, glyphpress
) -> None:
    train = load(spec(shape, data), "train")
    linear = reader(train)
    checkpoint, options = write(shape, tmp_path, linear, train.classes)
    exported, policy = tmp_path / "theirs.onnx", tmp_path / "policy.toml"
    made = glyphpress("export", checkpoint, *options, "--data", spec(shape, data), "-o", exported)
    assert made.code == 0, made.err
    sidecar = json.loads((tmp_path / "theirs.onnx.json").read_text())
    assert sidecar["preprocess"]["orientation"] == shape.orientation
    assert sidecar["preprocess"]["label_offset"] == shape.blank
    assert FILES[shape.file].said in "; ".join(sidecar["notes"])

    baseline = linear_reader(tmp_path / "reader.onnx", linear=linear, classes=train.classes)
    policy.write_text('[drop]\nmax = "3pp"\n[preprocess]\naction = "warn"\n')
    words = ("gate", "--baseline", baseline, "--candidate", exported, "--policy", policy, "--json")
    judged = glyphpress(*words, "--data", spec(shape, data))
    assert judged.code == 0, judged.err
    found = json.loads(judged.out)["comparison"]
    assert found["lost"] + found["gained"] <= MOST_CHANGED * found["images"]
    assert found["candidate_accuracy"] > 0.85


def test_every_property_of_a_checkpoint_is_that_of_one() -> None:
    seen = {name: {getattr(shape, name) for shape in SHAPES} for name in Shape.__dataclass_fields__}
    assert seen["file"] == set(FILES)
    assert seen["end"] == {"logits", "log-softmax", "softmax", "tuple", "two equal outputs"}
    assert seen["form"] == {"image", "flat", "three", "padded", "resized"}
    assert seen["scaling"] == {(0.1307, 0.3081), (0.1736, 0.3317), (0.5, 0.5), (0.0, 1.0)}
    assert seen["dtype"] == {"float32", "float16", "bfloat16", "float64"}
    assert seen["orientation"] == {"upright", "transpose"}
    columns = {"builtin": 10, "byclass": 62, "balanced": 47, "letters": 26, "byclass[0-9A-Z]": 36, "byclass[A-Z]": 26}
    assert {shape.outputs(columns[shape.data]) for shape in SHAPES} == {62, 47, 37, 36, 27, 26, 10}
