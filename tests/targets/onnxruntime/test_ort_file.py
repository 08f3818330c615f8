"""Files in ONNX Runtime's own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from targets import catalog
from targets.artifact import ONNX_METADATA_KEY, Artifact
from targets.errors import ArtifactError, RunFailed
from targets.host.fresh_process import operators
from targets.metadata import adopt, explained, load_artifact, save_sidecar
from tests.fixtures.small_models import artifact, glyphs, integer_net, stored


@pytest.fixture
def optimized(onnx_artifact: Artifact, tmp_path: Path) -> Artifact:
    return artifact(stored(onnx_artifact.path, tmp_path / "net.ort"))


def test_it_answers_as_the_file_it_was_made_of(optimized: Artifact, onnx_artifact: Artifact) -> None:
    assert optimized.format == "ort"
    place = catalog.default_for("ort")
    with place.open(optimized) as own, place.open(onnx_artifact) as other:
        np.testing.assert_allclose(own.run(glyphs(70)), other.run(glyphs(70)), atol=1e-5)


def test_its_sidecar_is_read_again(optimized: Artifact) -> None:
    save_sidecar(optimized)
    assert load_artifact(optimized.path) == optimized


def test_it_says_what_the_onnx_file_said_of_itself(onnx_artifact: Artifact, tmp_path: Path) -> None:
    facts = onnx_artifact.facts()
    kept = ("schema", "preprocess", "classes", "recipe", "parent_sha256", "tools", "calibration", "notes")
    model = onnx.load(onnx_artifact.path)
    model.metadata_props.add(
        key=ONNX_METADATA_KEY, value=json.dumps({name: facts[name] for name in kept if name in facts})
    )
    source = tmp_path / "told.onnx"
    onnx.save(model, source)
    path = stored(source, tmp_path / "told.ort")
    assert explained(path)
    found = load_artifact(path)
    assert (found.classes, found.preprocess) == (onnx_artifact.classes, onnx_artifact.preprocess)


def test_a_truncated_one_is_one_line(optimized: Artifact) -> None:
    optimized.path.write_bytes(optimized.path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match="convert it again") as caught:
        adopt(optimized.path, preprocess=optimized.preprocess, classes=optimized.classes)
    assert "\n" not in str(caught.value)


def test_damaged_metadata_is_one_line(onnx_artifact: Artifact, tmp_path: Path) -> None:
    model = onnx.load(onnx_artifact.path)
    model.metadata_props.add(key="said", value="undamaged")
    onnx.save(model, tmp_path / "told.onnx")
    path = stored(tmp_path / "told.onnx", tmp_path / "told.ort")
    path.write_bytes(path.read_bytes().replace(b"undamaged", b"un\xe0amaged"))
    with pytest.raises(ArtifactError, match="its metadata is damaged"):
        explained(path)


def test_integers_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    path = stored(integer_net(tmp_path / "int.onnx"), tmp_path / "int.ort")
    with pytest.raises(ArtifactError, match="no scale for the int8 values of image; make it with `glyphpress export`"):
        artifact(path)


def test_its_operators_are_those_of_the_onnx_file(optimized: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"profile the \.onnx"):
        operators(optimized, catalog.get("ort-cpu"))
