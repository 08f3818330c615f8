"""Every form of checkpoint that docs/sources.md lists, from the file to the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
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


ROOT = Path(__file__).parents[3]
ROWS: dict[str, Callable[[Shape], bool] | str] = {
    "a state_dict": lambda shape: shape.file in ("state_dict", "beside optimizer, epoch and class names"),
    "one with a configuration": lambda shape: "arguments of" in FILES[shape.file].said,
    "one with the names of its classes": lambda shape: shape.file == "beside optimizer, epoch and class names",
    "one with prefixes": lambda shape: shape.file in ("DataParallel", "compiled"),
    "raw and averaged weights": lambda shape: shape.file == "EMA",
    "`.safetensors`": "checkpoint/test_load.py::test_safetensors_says_its_classes_and_preprocess_itself",
    "a whole pickled model": "checkpoint/test_load.py::test_a_whole_pickled_model_is_read_only_when_trusted",
    "TorchScript": "checkpoint/test_load.py::test_torchscript_comes_back_as_layers",
    "a float `.onnx`": "checkpoint/test_onnx.py::test_any_float_classifier_becomes_one_form_with_the_same_answers",
    "a forest": "cli/test_estimator_options.py::test_the_tutorial_s_hypothesis_is_accepted_for_the_svc_and_rejected",
    "one of our names": "models/test_every_model.py::test_every_model_trains_two_steps_is_pressed_and_is_judged",
    "answers logits, log-prob": lambda shape: shape.end in ("logits", "log-softmax", "softmax"),
    "answers several outputs": lambda shape: shape.end == "tuple",
    "answers logits and what": lambda shape: shape.end == "two equal outputs",
    "has 62, 47, 36, 26 or 10 columns": lambda shape: not shape.blank,
    "has a column more": lambda shape: shape.blank,
    "knows some classes": "cli/test_chosen_classes.py::test_row17_press_of_fewer_columns_than_the_data_has_classes",
    "takes 1x28x28": lambda shape: shape.form == "image",
    "takes 784 values": lambda shape: shape.form != "image",
    "wants its images turned": lambda shape: shape.orientation != "upright" and not shape.says,
    "has weights in float16": lambda shape: shape.dtype != "float32",
}
"""Beginnings of the rows of docs/sources.md: which shapes are one, or the test of it."""


def test_every_row_of_the_table_is_tested() -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8").partition("# Checkpoints as you have them")[2]
    cells = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    rows = [cell for cell in cells if cell not in ("---", "checkpoint", "the model")]
    assert len(rows) == len(ROWS)
    for row, (start, what) in zip(rows, ROWS.items(), strict=True):
        assert row.startswith(start)
        if isinstance(what, str):
            file, _, test = what.partition("::")
            assert f"def {test}" in (ROOT / "tests" / "toolchain" / file).read_text(encoding="utf-8")
        else:
            assert any(map(what, SHAPES)), row
