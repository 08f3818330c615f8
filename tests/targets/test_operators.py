"""Per-operator profiles: what runs, in which layer, and that the heavy one is told as heavy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from targets import catalog
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.local_target import operators
from tests.fixtures.small_models import artifact, conv_net

NAMES = {"w": "features.conv1.weight", "fc": "classifier.weight"}


def named_net(folder: Path, channels: int) -> Artifact:
    """Write a net whose weights are named as torch names them."""
    path = folder / f"named-{channels}.onnx"
    model = onnx.load(conv_net(path, channels=channels))
    for tensor in model.graph.initializer:
        tensor.name = NAMES[tensor.name]
    for node in model.graph.node:
        node.input[:] = [NAMES.get(name, name) for name in node.input]
    onnx.save(model, path)
    return artifact(path)


@pytest.fixture
def named(tmp_path: Path) -> Artifact:
    return named_net(tmp_path, 4)


class _Images(CalibrationDataReader):
    def __init__(self) -> None:
        self._left = iter(np.random.default_rng(0).random((8, 1, 1, 28, 28), dtype=np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {"image": image}


def layers_of(model: Artifact, word: str, **settings: int) -> dict[str, float]:
    """Return the time of each layer."""
    took: dict[str, float] = {}
    for operator in operators(model, catalog.get(word), **settings):
        took[operator.layer] = took.get(operator.layer, 0.0) + operator.ns
    return took


@pytest.mark.parametrize("word", ["ort-cpu", "ort-cpu,graph=basic", "ort-reference"])
def test_the_layer_that_grew_is_the_one_that_takes_longer(named: Artifact, word: str, tmp_path: Path) -> None:
    small, large = (layers_of(operator, word, batch=8) for operator in (named, named_net(tmp_path, 96)))
    assert {"features.conv1", "classifier"} <= set(small)
    assert large["features.conv1"] > 1.5 * small["features.conv1"] > 0


def test_fused_integer_kernels_are_joined_to_layers(named: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    quantize_static(named.path, path, _Images(), quant_format=QuantFormat.QDQ, per_channel=True)
    kernels = operators(artifact(path), catalog.get("ort-cpu"))
    assert ("QLinearConv", "features.conv1") in {(operator.kernel, operator.layer) for operator in kernels}
    assert any("classifier" in operator.layer and operator.kernel in ("QLinearMatMul", "QGemm") for operator in kernels)


def test_a_file_without_names_still_tells_its_kernels(onnx_artifact: Artifact) -> None:
    kernels = [operator.kernel for operator in operators(onnx_artifact, catalog.get("ort-reference"))]
    assert kernels == ["Conv", "Relu", "Flatten", "MatMul"]


@pytest.mark.parametrize("word", ["litert-cpu", "litert-cpu,xnnpack=off"])
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_of_litert_are_joined_to_the_operators_with_weights(
    tflite_artifact: Artifact, word: str, threads: int
) -> None:
    kernels = operators(tflite_artifact, catalog.get(word), threads=threads)
    weighted = [operator for operator in kernels if any(part in operator.kernel.upper() for part in ("CONV", "FULLY"))]
    assert len(weighted) == 2
    assert all(operator.layer for operator in weighted)
    assert weighted[0].layer != weighted[1].layer
    inside = any("NHWC" in operator.kernel for operator in kernels)
    assert inside is (word == "litert-cpu"), "XNNPACK's own kernels are told where it runs, and only there"


def test_a_batch_that_the_file_does_not_have_is_refused(tflite_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match="give 1, not 3") as caught:
        operators(tflite_artifact, catalog.get("litert-cpu"), batch=3)
    assert str(caught.value).startswith(str(tflite_artifact.path))


def test_a_place_without_a_profiler_names_those_that_have_one(onnx_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"null does not report.*take ort-cpu or"):
        operators(onnx_artifact, catalog.get("null"))
