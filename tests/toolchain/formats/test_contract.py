"""What every format of the catalog keeps, on a small real file; and what a new one takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets import catalog as targets
from targets.artifact import Artifact, Format
from targets.metadata import describe
from tests.fixtures.extended import Extended
from tests.fixtures.quantized import read
from toolchain.checkpoint.kinds import kind_of
from toolchain.core.errors import CheckpointError, UsageProblem
from toolchain.export import EXPORTERS
from toolchain.export.ort_format import export_ort
from toolchain.formats import catalog
from toolchain.formats.graph import NOT_FLOAT
from toolchain.quantize.schemes import QUANTIZERS

READABLE = [file_format.name for file_format in catalog.readable()]
OPAQUE = [name for name in catalog.FORMATS if name not in READABLE]
PARAMETERS = 150_000
"""Fewer than any file of the fixture holds."""


@pytest.fixture(scope="session")
def ort(tmp_path_factory: pytest.TempPathFactory, floats: dict[Format, Artifact]) -> Artifact:
    return export_ort(floats["onnx"], tmp_path_factory.mktemp("ort") / "digits.float.ort")


@pytest.fixture
def artifact(request: pytest.FixtureRequest, floats: dict[Format, Artifact]) -> Artifact:
    """A float file of the format that the test is run for."""
    name = request.node.callspec.params["name"]
    return floats[name] if name in EXPORTERS else request.getfixturevalue("ort")


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_a_file_is_known_by_its_name_and_runs_on_its_default_target(name: str, artifact: Artifact) -> None:
    file_format = catalog.get(name)
    assert catalog.of(artifact.path) is file_format
    assert (file_format.name, file_format.suffix) == (artifact.format, artifact.path.suffix)
    assert name in targets.default_for(artifact.format).formats
    assert file_format.title
    assert file_format.runtime


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_a_file_is_known_by_its_bytes(name: str, artifact: Artifact, tmp_path: Path) -> None:
    renamed = tmp_path / "file.xyz"
    shutil.copyfile(artifact.path, renamed)
    if name in READABLE:
        assert kind_of(renamed) == name
    else:
        with pytest.raises(CheckpointError, match=catalog.get(name).opaque):
            kind_of(renamed)


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_a_format_is_exported_or_converted_from_one_that_is(name: Format) -> None:
    file_format = catalog.get(name)
    assert (name in EXPORTERS) is (file_format.parent is None)
    assert file_format.parent is None or file_format.parent in EXPORTERS
    assert file_format.pressed is (name in EXPORTERS and name in QUANTIZERS)
    assert bool(file_format.activations) is (name in QUANTIZERS)


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_what_a_file_says_of_itself_leaves_it_valid(
    name: str, artifact: Artifact, digits_test: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / artifact.path.name
    for source in (artifact.path, *catalog.get(name).weight_files(artifact.path)):
        shutil.copyfile(source, path.with_name(source.name))
    catalog.get(name).embed(path, {"schema": "glyphpress/artifact/1", "recipe": "of this test"})
    assert describe(path) == (artifact.inputs, artifact.outputs)
    embedded = Artifact(path, artifact.format, "", *describe(path), artifact.preprocess, artifact.classes)
    np.testing.assert_array_equal(read(embedded, digits_test.images[:4]), read(artifact, digits_test.images[:4]))


@pytest.mark.parametrize("name", READABLE)
def test_it_shows_what_stands_in_a_file(name: str, artifact: Artifact) -> None:
    inspection = catalog.get(name).inspect(artifact.path)
    assert (inspection.path, inspection.kind, inspection.sha256) == (artifact.path, name, artifact.sha256)
    assert inspection.parameters > PARAMETERS
    assert sum(inspection.bytes_by_dtype.values()) <= inspection.bytes == artifact.size
    assert sum(layer.parameters for layer in inspection.layers) > PARAMETERS
    assert inspection.macs
    assert (len(inspection.inputs), len(inspection.outputs)) == (1, 1)


@pytest.mark.parametrize("name", READABLE)
def test_layers_kernels_and_traces_speak_of_the_same_layers(
    name: str, artifact: Artifact, digits_test: Dataset
) -> None:
    file_format = catalog.get(name)
    layers = [layer.name for layer in file_format.graph(artifact.path).layers]
    assert len(layers) > 3
    assert len(set(layers)) == len(layers)
    assert sorted(kernel.layer for kernel in file_format.kernels(artifact) if kernel.layer) == sorted(layers)
    trace = file_format.trace(artifact)
    pixels = artifact.preprocess.apply(digits_test.images[:1])
    results = trace.whole(pixels)
    assert list(results) == layers
    logits = read(artifact, digits_test.images[:1])
    np.testing.assert_allclose(results[layers[-1]].reshape(logits.shape), logits, rtol=1e-3, atol=1e-4)
    alone = trace.alone(pixels, results)
    for layer in layers:
        np.testing.assert_allclose(alone[layer], results[layer], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", READABLE)
def test_it_tells_what_of_a_quantized_file_is_float(
    name: Format, artifact: Artifact, pressed: dict[tuple[Format, str], Artifact]
) -> None:
    file_format, quantized = catalog.get(name), pressed[name, "static-int8"]
    exact = file_format.float_parts(artifact.path.read_bytes()).weights()
    # The paddings of a Pad are a small matrix of integers.
    assert exact[NOT_FLOAT] < 100
    assert exact.total() > PARAMETERS
    parts = file_format.float_parts(quantized.path.read_bytes())
    assert parts.operators() == set()
    weights = parts.weights()
    assert weights[NOT_FLOAT] == weights.total() == exact.total()


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_it_tells_why_a_file_is_slow_or_large(name: str, artifact: Artifact) -> None:
    file_format = catalog.get(name)
    diagnosis = file_format.diagnosis(artifact)
    assert all(reason and "\n" not in reason for reason in diagnosis.reasons(artifact))
    assert not diagnosis.computes_in_int8()
    reason = file_format.size_reason(artifact.path)
    assert f"{artifact.size:,} bytes" in reason or name in OPAQUE


@pytest.mark.parametrize("name", OPAQUE)
def test_a_file_whose_graph_cannot_be_read_is_refused_with_the_reason(name: str, artifact: Artifact) -> None:
    file_format = catalog.get(name)
    for method in (file_format.inspect, file_format.graph):
        with pytest.raises(UsageProblem, match=file_format.opaque):
            method(artifact.path)
    for method in (file_format.kernels, file_format.trace):
        with pytest.raises(UsageProblem, match=file_format.opaque):
            method(artifact)


@pytest.mark.parametrize("name", READABLE)
def test_a_file_that_is_cut_off_is_refused(name: str, artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / artifact.path.name
    path.write_bytes(artifact.path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=path.name):
        catalog.get(name).inspect(path)


LINES = '''
"""A format for this test: a text file with the name, rows and columns of a matrix on each line."""

from toolchain.formats.catalog import FileFormat
from toolchain.formats.inspection import Inspection, InspectedLayer, StoredTensor


class LinesFormat(FileFormat):
    name = "lines"
    title = "Lines"
    runtime = "none"

    def inspect(self, path):
        rows = [line.split() for line in path.read_text().splitlines()]
        sizes = [(name, (int(high), int(wide))) for name, high, wide in rows]
        layers = tuple(InspectedLayer(name, "Matrix", shape[1:], shape[0] * shape[1]) for name, shape in sizes)
        tensors = tuple(StoredTensor(name, "float32", shape, 4 * shape[0] * shape[1]) for name, shape in sizes)
        total = sum(layer.parameters for layer in layers)
        return Inspection(path, self.name, path.stat().st_size, "0" * 64, total, tensors, layers)
'''


def test_a_new_format_is_one_file_and_one_line(tmp_path: Path) -> None:
    line = '    "lines": "toolchain.formats.lines:LinesFormat",'
    table = "toolchain/formats/catalog.py"
    extended = Extended.of(tmp_path, "toolchain/formats/lines.py", LINES, table=table, after="FORMATS = {", line=line)
    (tmp_path / "net.lines").write_text("first 28 10\nsecond 10 5\n", encoding="utf-8")
    shown = extended.run("inspect", "net.lines")
    assert shown.returncode == 0, shown.stderr
    assert "net.lines  Lines  24 bytes" in shown.stdout
    assert "330" in shown.stdout
    asked = extended.run("inspect", "net.lines", "--json")
    facts = json.loads(asked.stdout)
    assert (facts["kind"], [layer["name"] for layer in facts["layers"]]) == ("lines", ["first", "second"])
    refused = extended.run("quantize", "net.lines", "-o", "small.lines", "--scheme", "weight-int8")
    assert refused.returncode == 3
    assert "net.lines is neither .onnx nor .tflite" in refused.stderr
    exported = extended.run("export", "cnn-small", "-o", "small.lines")
    assert exported.returncode == 2
    assert "cannot be exported" in exported.stderr
