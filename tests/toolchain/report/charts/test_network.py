"""The drawing of a network: boxes in order, what joins them, and what a real file's layers are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets.artifact import Artifact
from targets.preprocess import Preprocess
from targets.session import Operator
from tests.fixtures.lazy import blocks
from tests.fixtures.svg import HOSTILE, Picture
from toolchain.checkpoint.float_model import TorchModel
from toolchain.export import export
from toolchain.report.charts.network import Box, boxes, network_svg

CHAIN = (
    Box("stem", "Conv", (16, 28, 28), "int8", "int8", 20_000.0, (-1,)),
    Box("first", "Conv", (16, 28, 28), "int8", "int8", 80_000.0, (0,)),
    Box("second", "Conv", (16, 28, 28), "int8", "int8", 40_000.0, (1,)),
    Box("classifier", "Gemm", (10,), "int8", "float32", 10_000.0, (0, 2)),
)


@pytest.mark.parametrize("width", [358, 720])
def test_boxes_follow_each_other_with_shapes_types_and_times(width: int) -> None:
    picture = Picture(network_svg(CHAIN, width=width)).check()
    names = [picture.text(box.name) for box in CHAIN]
    assert [one.y for one in names] == sorted(one.y for one in names)
    words = " ".join(picture.words)
    assert "Conv, 16x28x28, int8" in words
    assert "Gemm, 10, int8 weights, float32" in words
    bars = [float(one.get("width", 0)) for one in picture.all("rect") if one.get("rx") is None]
    assert bars == pytest.approx([bars[1] * share for share in (0.25, 1, 0.5, 0.125)], abs=0.2)
    borders = [float(one.get("stroke-width", 1)) for one in picture.all("rect", rx="4")]
    assert borders == [1.8, 1.8, 1.8, 1.0], "integer values have a thick border"
    assert "The slowest are first with 80.0 us, second with 40.0 us and 2 more." in picture.title


def test_a_result_that_passes_boxes_is_drawn_around_them() -> None:
    def around(chain: tuple[Box, ...]) -> list[tuple[float, float]]:
        paths = [one.get("d", "") for one in Picture(network_svg(chain)).all("path")]
        return [(float(a), float(b)) for path in paths for a, b in re.findall(r"H[\d.]+V([\d.]+)h([\d.]+)", path)]

    assert len(around(CHAIN)) == 1
    assert not around(CHAIN[:3])
    picture = Picture(network_svg(CHAIN))
    end, _ = around(CHAIN)[0]
    box = picture.all("rect", rx="4")[3]
    top = float(box.get("y", 0))
    assert top < end < top + float(box.get("height", 0)), "it ends at the box that reads it"


def test_two_results_that_pass_the_same_box_lie_apart() -> None:
    plain = [Box(f"layer{k}", "Conv", None, "float32", "float32", None, (k - 1,)) for k in range(6)]
    plain[4] = Box("sum", "Conv", None, "float32", "float32", None, (0, 1, 3))
    drawn = [one.get("d", "") for one in Picture(network_svg(plain)).check().all("path")]
    tracks = [float(x) for path in drawn for x in re.findall(r"H([\d.]+)V", path)]
    assert len(tracks) == len(set(tracks)) == 2


def test_without_inputs_or_times_the_boxes_are_a_chain() -> None:
    chain = [Box(f"layer{k}", "Conv", None, "float32", "float32") for k in range(50)]
    picture = Picture(network_svg(chain, most=10)).check()
    assert "40 layers more." in " ".join(picture.words)
    assert "time of a layer" not in picture.words
    assert len(picture.all("rect")) == 10


def test_nothing_and_hostile_names() -> None:
    assert "The file has no layer with weights." in Picture(network_svg([])).check().words
    picture = Picture(network_svg([Box(HOSTILE * 4, HOSTILE, (), HOSTILE, HOSTILE, 0.0)])).check()
    assert not picture.all("script")
    assert np.isfinite(picture.height)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_layers_of_a_file_have_the_shapes_of_its_results(
    kind: str, pressed: dict[tuple[str, str], Artifact]
) -> None:
    artifact = pressed[kind, "static-int8"]
    found = boxes(artifact, [Operator("any", "classifier", 3000.0), Operator("any", "classifier", 1000.0)])
    assert found[-1].shape == (10,)
    assert found[-1].ns == 4000.0
    assert all(box.shape and box.weights == "int8" for box in found)
    assert found[0].inputs == (-1,)
    assert [box.inputs for box in found[1:]] == [(k,) for k in range(len(found) - 1)]


def test_a_sum_is_read_from_both_its_sides(tmp_path: Path, digits: Dataset) -> None:
    model = TorchModel("residual", Preprocess(), digits.classes, "0" * 64, blocks.Residual().eval())
    file = export(model, "onnx", tmp_path / "residual.onnx")
    assert [box.inputs for box in boxes(file)] == [(-1,), (0,), (1,), (0, 2)]
