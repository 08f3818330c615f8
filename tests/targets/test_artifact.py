"""Artifacts: sidecar and file metadata, round trips, and every file that is not what it says."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from targets import catalog
from targets.artifact import DTYPES, ONNX_METADATA_KEY, SCHEMA, Artifact, TensorSpec, file_sha256
from targets.errors import ArtifactError
from targets.metadata import adopt, describe, load_artifact, save_sidecar
from targets.preprocess import Preprocess
from tests.fixtures.small_models import CLASSES, artifact, conv_net, integer_net
from tests.fixtures.strategies import preprocesses

texts = st.text(max_size=8)
facts = st.fixed_dictionaries(
    {
        "preprocess": preprocesses,
        "classes": st.lists(texts, min_size=2, max_size=62).map(tuple),
        "recipe": texts,
        "parent_sha256": st.none() | texts,
        "checkpoint_sha256": st.none() | texts,
        "calibration": st.none() | st.dictionaries(texts, texts | st.integers()),
        "tools": st.dictionaries(texts, texts),
        "notes": st.lists(texts, max_size=3).map(tuple),
        "inputs": st.lists(
            st.builds(
                lambda name, shape, dtype, scaling: TensorSpec(name, shape, dtype, *scaling),
                texts,
                st.lists(st.integers(-1, 99)).map(tuple),
                st.sampled_from(DTYPES),
                st.just((None, None)) | st.tuples(st.floats(1e-6, 1e3), st.integers(-128, 255)),
            ),
            max_size=2,
        ).map(tuple),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(facts)
def test_a_sidecar_says_everything(tmp_path: Path, facts: dict[str, object]) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(b"bytes")
    made = Artifact(path=path, format="tflite", sha256=file_sha256(path), outputs=(), **facts)
    save_sidecar(made)
    assert load_artifact(path) == made
    assert sorted(p.name for p in tmp_path.iterdir()) == ["any.tflite", "any.tflite.json"]


def _embedded(path: Path, artifact: Artifact, **changes: object) -> None:
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key = ONNX_METADATA_KEY
    made = {k: v for k, v in artifact.facts().items() if k not in ("sha256", "bytes", "file", "inputs", "outputs")}
    entry.value = json.dumps(made | changes)
    onnx.save(model, path)


def test_an_onnx_file_explains_itself_without_a_sidecar(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    made = replace(artifact(path, orientation="transpose", mean=0.2), recipe="static-int8", parent_sha256="ab")
    _embedded(path, made)
    assert load_artifact(path) == replace(made, sha256=file_sha256(path))


def test_a_sidecar_of_before_checkpoints_were_recorded_is_still_read(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    made = replace(artifact(path), parent_sha256="ab", checkpoint_sha256="cd")
    facts = json.loads(save_sidecar(made).read_text())
    assert facts.pop("checkpoint_sha256") == "cd"
    made.sidecar.write_text(json.dumps(facts))
    assert load_artifact(path) == replace(made, checkpoint_sha256=None)


def test_a_sidecar_of_before_scales_were_recorded_is_read_where_it_says_enough(tmp_path: Path) -> None:
    for path, readable in ((conv_net(tmp_path / "float.onnx"), True), (integer_net(tmp_path / "int.onnx"), False)):
        made = artifact(path)
        facts = json.loads(save_sidecar(made).read_text())
        for spec in (*facts["inputs"], *facts["outputs"]):
            del spec["scale"], spec["zero_point"]
        made.sidecar.write_text(json.dumps(facts))
        if readable:
            assert load_artifact(path) == made
        else:
            with pytest.raises(ArtifactError, match=r"'scale'.*export the model again"):
                load_artifact(path)


def test_a_sidecar_outranks_the_files_metadata(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "net.onnx")
    _embedded(path, artifact(path), recipe="embedded")
    save_sidecar(replace(artifact(path), recipe="beside"))
    assert load_artifact(path).recipe == "beside"


def test_files_are_described(onnx_artifact: Artifact, tflite_artifact: Artifact, int8_artifact: Artifact) -> None:
    inputs, outputs = describe(onnx_artifact.path)
    assert inputs == (TensorSpec("image", (-1, 1, 28, 28), "float32"),)
    assert outputs == (TensorSpec("logits", (-1, 10), "float32"),)
    for path, dtype in ((tflite_artifact.path, "float32"), (int8_artifact.path, "int8")):
        ((source,), (sink,)) = describe(path)
        assert (source.shape, source.dtype, sink.shape, sink.dtype) == ((1, 1, 28, 28), dtype, (1, 10), dtype)


@pytest.mark.parametrize("stored", ["initializers", "Constant nodes"])
def test_integers_of_an_onnx_file_are_described_with_what_they_stand_for(stored: str, tmp_path: Path) -> None:
    path = integer_net(tmp_path / "int.onnx")
    if stored != "initializers":
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
        model.graph.ClearField("initializer")
        onnx.save(model, path)
    ((source,), (sink,)) = describe(path)
    assert (source.scale, source.zero_point) == (pytest.approx(1 / 255), -128)
    assert (sink.scale, sink.zero_point) == (0.5, 128)


def test_integers_of_a_tflite_file_are_described_with_what_they_stand_for(int8_artifact: Artifact) -> None:
    for spec in (*int8_artifact.inputs, *int8_artifact.outputs):
        assert 0 < spec.scale < 1
        assert -128 <= spec.zero_point <= 127


def test_a_users_own_file_is_adopted_without_writing(tmp_path: Path) -> None:
    path = conv_net(tmp_path / "own.onnx")
    adopted = adopt(path, preprocess=Preprocess(label_offset=1), classes=CLASSES[:9])
    assert (adopted.recipe, adopted.sha256) == ("foreign", file_sha256(path))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ArtifactError, match=r"\[10\] wide, but 10 classes with label offset 1 need 11"):
        adopt(path, preprocess=Preprocess(label_offset=1), classes=CLASSES)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(300)


def _no_outputs(path: Path) -> None:
    model = onnx.load(path)
    del model.graph.output[:]
    onnx.save(model, path)


def _external(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0)


BROKEN = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a picture": lambda path: path.write_bytes(PNG),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "without outputs": _no_outputs,
    "weights elsewhere": _external,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_onnx_file_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = conv_net(tmp_path / "net.onnx")
    BROKEN[how](path)
    _refused(path)


def _in_constants(model: onnx.ModelProto) -> None:
    weights = list(model.graph.initializer)
    del model.graph.initializer[:]
    for place, weight in enumerate(weights):
        model.graph.node.insert(place, helper.make_node("Constant", [], [weight.name], value=weight))


@pytest.mark.parametrize("place", [None, _in_constants])
def test_weights_in_another_file_are_refused_whatever_the_sidecar_says(tmp_path: Path, place: Any) -> None:
    described_file = artifact(conv_net(tmp_path / "net.onnx"))
    model = onnx.load(described_file.path)
    if place:
        place(model)
    external = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0, "convert_attribute": True}
    onnx.save(model, described_file.path, **external)
    # A sidecar that fits the small file says nothing of the weights.
    save_sidecar(replace(described_file, sha256=file_sha256(described_file.path)))
    with pytest.raises(ArtifactError, match=r"another file \('w.bin'\).*onnx\.save\(onnx\.load") as caught:
        load_artifact(described_file.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["missing", "empty", "a picture", "truncated"])
def test_a_broken_tflite_file_is_refused_in_one_line(tmp_path: Path, tflite_artifact: Artifact, how: str) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(tflite_artifact.path.read_bytes())
    BROKEN[how](path)
    _refused(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"x")
    _refused(path)


def _refused(path: Path) -> None:
    for read in (describe, load_artifact, lambda p: adopt(p, preprocess=Preprocess(), classes=CLASSES)):
        with pytest.raises(ArtifactError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


SIDECARS = {
    "row35-NaN": lambda facts: json.dumps(facts | {"calibration": {"images": float("nan")}}),
    "row35-too large a number": lambda facts: json.dumps(facts | {"calibration": {"images": 7.5}}).replace(
        "7.5", "1e999"
    ),
    "no json": lambda facts: "{",
    "a list": lambda facts: "[]",
    "another schema": lambda facts: json.dumps(facts | {"schema": "glyphpress/artifact/99"}),
    "a key gone": lambda facts: json.dumps({k: v for k, v in facts.items() if k != "classes"}),
    "an unknown preprocess": lambda facts: json.dumps(facts | {"preprocess": {"orientation": "odd"}}),
    "row35-a dtype that is none": lambda facts: json.dumps(facts | {"inputs": [facts["inputs"][0] | {"dtype": "é"}]}),
    "row35-a scale of zero": lambda facts: json.dumps(
        facts | {"inputs": [facts["inputs"][0] | {"dtype": "uint8", "scale": 0.0, "zero_point": 0}]}
    ),
    "another format": lambda facts: json.dumps(facts | {"format": "tflite"}),
    "of another file": lambda facts: json.dumps(facts | {"sha256": "0" * 64}),
    "not text": lambda facts: "\udcff",
}


@pytest.mark.parametrize("how", SIDECARS)
def test_a_sidecar_that_does_not_belong_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = conv_net(tmp_path / "net.onnx")
    made = artifact(path)
    made.sidecar.write_text(SIDECARS[how](made.facts()), errors="surrogateescape")
    with pytest.raises(ArtifactError) as caught:
        load_artifact(path)
    assert "net.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sidecar_of_a_later_version_says_what_to_update(tmp_path: Path) -> None:
    made = artifact(conv_net(tmp_path / "net.onnx"))
    made.sidecar.write_text(json.dumps(made.facts() | {"schema": "glyphpress/artifact/2", "classes": {}}))
    with pytest.raises(ArtifactError) as caught:
        load_artifact(made.path)
    later = r"was made by a later glyphpress \(format 2\); this is version \S+, which reads up to 1: update glyphpress"
    assert re.fullmatch(f"{re.escape(str(made.sidecar))} {later}", str(caught.value))
    made.sidecar.write_text(json.dumps(made.facts() | {"a later key": {}}))
    assert load_artifact(made.path) == made


def followed(steps: list[str], values: np.ndarray) -> np.ndarray:
    """Do what the texts of a sidecar say, as a caller would who knows nothing else."""
    for step in steps:
        word, _, rest = step.partition(" ")
        number = re.match(r"(?:by )?(-?[\d.e-]+)$", rest)
        if number:
            amount = np.float32(number[1])
            values = {"divide": np.divide, "multiply": np.multiply, "subtract": np.subtract, "add": np.add}[word](
                values.astype(np.float32), amount
            )
        elif word == "round":
            values = np.rint(values)
        elif word == "clip":
            limits = np.iinfo(rest.split()[-1])
            values = np.clip(values, limits.min, limits.max).astype(limits.dtype)
        else:
            assert word in ("crop", "give", "read", "the", "apply"), step
    return values


def test_who_follows_the_duties_of_an_integer_file_gets_the_same_answers(tmp_path: Path) -> None:
    made = artifact(integer_net(tmp_path / "int.onnx"), mean=0.25, std=0.5)
    duties = made.facts()["duties"]
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    runtime = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    (raw,) = runtime.run(["logits"], {"image": followed(duties["caller"], images)[:, None]})
    assert raw.dtype == np.uint8
    with catalog.default_for("onnx").open(made) as session:
        wanted = session.run(images)
    assert followed(duties["answer"], raw).tolist() == wanted.tolist()
    assert duties["answer"][-1].startswith("apply softmax")


def test_a_foreign_file_without_sidecar_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no sidecar; make one with"):
        load_artifact(conv_net(tmp_path / "net.onnx"))


def test_facts_are_json_with_the_schema(onnx_artifact: Artifact) -> None:
    facts = json.loads(json.dumps(onnx_artifact.facts()))
    assert facts["schema"] == SCHEMA
    assert facts["preprocess"] == asdict(onnx_artifact.preprocess)
    assert facts["bytes"] == onnx_artifact.path.stat().st_size
