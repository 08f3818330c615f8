"""What is OpenVINO's own: 32-bit floats whatever the processor has, and the same answers as ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from targets import catalog
from targets.artifact import Artifact
from targets.onnxruntime.cpu import OrtCpu
from targets.openvino import OpenVinoCpu
from tests.fixtures.small_models import artifact, conv_net, glyphs, integer_net


def test_floats_stay_floats(onnx_artifact: Artifact) -> None:
    images = glyphs(130)
    with OpenVinoCpu().open(onnx_artifact) as session, OrtCpu().open(onnx_artifact) as usual:
        assert session.facts.precision == "float32"
        assert session.facts.placement["CPU"] > 0
        np.testing.assert_allclose(session.run(images), usual.run(images), atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled_up(tmp_path: Path, batch: int) -> None:
    fixed = artifact(conv_net(tmp_path / "fixed.onnx", batch=batch))
    with OpenVinoCpu().open(fixed) as session, OrtCpu().open(fixed) as usual:
        np.testing.assert_allclose(session.run(glyphs(7)), usual.run(glyphs(7)), atol=1e-4)


def test_integer_borders_are_quantized_and_dequantized(tmp_path: Path) -> None:
    net = artifact(integer_net(tmp_path / "integer.onnx"))
    with OpenVinoCpu().open(net) as session, OrtCpu().open(net) as usual:
        # A sum may round to the next step of the output, which is half a logit.
        assert np.abs(session.run(glyphs(50)) - usual.run(glyphs(50))).max() <= 0.5


def test_without_its_package_it_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    state = catalog.get("openvino-cpu").probe()
    assert (state.ok, state.fix) == (False, "install it with `pip install 'glyphpress[openvino]'`")
