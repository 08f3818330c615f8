"""Every quantized file is compared with its float file; the warning of a collapsed one names the worst layers."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Fidelity, Format
from targets.errors import ArtifactError
from targets.metadata import load_artifact
from tests.fixtures.planted_regressions import CONV2, CONV4, Change, planted, scale_times, zeroed
from tests.fixtures.small_readers import linear_reader
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import fidelity, sample
from toolchain.quantize.schemes import SCHEMES
from toolchain.recipe import Quantize

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
GRID = [(kind, scheme) for kind, scheme in product(FORMATS, SCHEMES) if kind not in SCHEMES[scheme].refused]


@pytest.fixture(scope="module")
def images(digits: Dataset, digits_test: Dataset) -> CalibrationSet:
    return draw(digits, 64, seed=0, exclude=digits_test)


@pytest.mark.parametrize(("kind", "scheme"), GRID, ids=lambda word: f"row3-{word}")
def test_every_scheme_is_compared_and_the_sidecar_says_so(
    kind: Format, scheme: str, floats: dict[Format, Artifact], images: CalibrationSet, digits: Dataset, tmp_path: Path
) -> None:
    step = Quantize.from_options(scheme=scheme)
    drawn, compared = (images, None) if step.calibrated else (None, sample(digits, 0))
    made = quantize(floats[kind], step, drawn, tmp_path / f"q.{kind}", recipe=scheme, compared=compared)
    comparison = made.fidelity
    assert comparison is not None
    assert (comparison.base, comparison.images) == (floats[kind].path.name, 256 if drawn is None else 64)
    assert not comparison.collapsed
    assert comparison.worst == {}
    assert comparison.warning("q") is None
    assert comparison.agreement > 0.95
    assert comparison.sqnr_db > (15 if step.weight_bits == 4 else 30)
    assert load_artifact(made.path) == made
    assert load_artifact(floats[kind].path).fidelity is None


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("change", "layer"),
    [
        pytest.param(scale_times(8, CONV4), "features.conv4", id="row3-scale"),
        pytest.param(zeroed(slice(0, 10), CONV2), "features.conv2", id="row3-channels-lost"),
    ],
)
def test_a_collapse_names_the_layer_that_caused_it(
    kind: Format,
    change: Change,
    layer: str,
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    tmp_path: Path,
) -> None:
    sound = quantize(floats[kind], Quantize(scheme="static-int8"), images, tmp_path / f"a.{kind}", recipe="x")
    broken = planted(sound, tmp_path / f"b.{kind}", change)
    comparison = fidelity(floats[kind], broken, images.images, bits=8)
    assert comparison.collapsed
    assert next(iter(comparison.worst)).replace("/", ".") == layer
    warning = comparison.warning("b")
    assert warning is not None
    assert all(word in warning for word in (next(iter(comparison.worst)), "glyphpress explain", "--keep", "--fallback"))


@pytest.mark.parametrize("kind", FORMATS, ids="row3-{}".format)
def test_the_command_warns_where_ranges_are_far_too_wide(
    kind: Format, glyphpress, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source, ranges_file, made = floats[kind].path, tmp_path / "r.json", tmp_path / f"q.{kind}"
    data = ("--data", "builtin:digits")
    first = glyphpress("quantize", source, *data, "--save-ranges", ranges_file, "-o", tmp_path / f"a.{kind}")
    assert "equal answers on 256 images" in first.out
    assert "warning" not in first.out
    ranges = json.loads(ranges_file.read_text())
    for tensor in ranges["tensors"][1:-1]:
        tensor["high"] = 90 * max(abs(tensor["lowest"]), abs(tensor["highest"]))
    ranges_file.write_text(json.dumps(ranges))
    assert first.out.splitlines()[-1].startswith("against ")
    broken = glyphpress("quantize", source, *data, "--ranges", ranges_file, "-o", made)
    assert broken.code == 0
    (warning,) = [line for line in broken.out.splitlines() if line.startswith("warning: ")]
    assert f"{made.name} does not answer like {source.name}" in warning
    stored = json.loads(made.with_name(made.name + ".json").read_text())["fidelity"]
    assert stored["collapsed"]
    assert 1 <= len(stored["worst"]) <= 3
    as_json = glyphpress("quantize", source, *data, "--ranges", ranges_file, "-o", made, "--force", "--json")
    assert json.loads(as_json.out)["fidelity"] == stored
    shown = glyphpress("inspect", made)
    assert f"against {source.name}: SQNR of the logits" in shown.out


def test_without_images_the_command_says_that_nothing_was_compared(
    glyphpress, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source = floats["onnx"].path
    done = glyphpress("quantize", source, "--scheme", "weight-int8", "-o", tmp_path / "q.onnx")
    assert f"not compared with {source.name}: no images were given; add --data" in done.out
    assert load_artifact(tmp_path / "q.onnx").fidelity is None


@pytest.mark.parametrize(
    "change",
    [{"agreement": 2}, {"agreement": "all"}, {"images": 0}, {"sqnr_db": float("nan")}, {"worst": []}, {"more": 1}],
    ids=str,
)
def test_a_sidecar_that_tells_nonsense_of_it_is_refused(
    change: dict[str, object], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    made = tmp_path / "q.onnx"
    quantize(floats["onnx"], Quantize(scheme="float16"), None, made, recipe="x", compared=np.zeros((2, 28, 28), "u1"))
    sidecar = made.with_name("q.onnx.json")
    facts = json.loads(sidecar.read_text())
    facts["fidelity"] |= change
    sidecar.write_text(json.dumps(facts))
    with pytest.raises(ArtifactError, match="not glyphpress metadata"):
        load_artifact(made)


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert Fidelity("a", 10_000, 30.0, 0.9999).agreement_text == "99.9 %"
    assert Fidelity("a", 256, None, 1.0).sqnr_text == "exact"


@pytest.mark.parametrize(("changed", "warned"), [(6, False), (12, False), (13, True), (21, True)])
def test_row3_answers_that_change_are_warned_of_at_a_sound_sqnr(
    changed: int, warned: bool, floats: dict[Format, Artifact], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = floats["onnx"]
    exact = np.tile(np.eye(10)[0] * 8, (256, 1))
    exact[:, 1] = 7.9
    rounded = exact.copy()
    rounded[:changed, 1] = 8.1
    answers = iter([exact, rounded])
    module = sys.modules["toolchain.quantize.fidelity"]
    monkeypatch.setattr(module, "_logits", lambda *_: next(answers))
    comparison = fidelity(base, base, sample(digits, 0), 8)
    assert comparison.sqnr_db > 40
    assert (comparison.collapsed, comparison.warning("q.onnx") is not None) == (warned, warned)


@pytest.mark.parametrize(
    ("bits", "equal", "warned"), [(4, 244, True), (4, 247, False), (8, 244, False), (8, 243, True)]
)
def test_row3_four_bits_are_warned_of_at_more_equal_answers(
    bits: int, equal: int, warned: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, made = (load_artifact(linear_reader(tmp_path / f"{name}.onnx")) for name in ("base", "made"))
    exact = np.tile(np.linspace(0, 1, 10), (256, 1))
    rounded = exact.copy()
    # Nearly the same numbers, whose two largest changed places.
    rounded[equal:, 8:] = rounded[equal:, 9:7:-1]
    answers = {"base.onnx": exact, "made.onnx": rounded}
    # By its name the package's attribute is the function.
    module = sys.modules["toolchain.quantize.fidelity"]
    monkeypatch.setattr(module, "_logits", lambda artifact, _images: answers[artifact.path.name])
    monkeypatch.setattr(module, "_worst", lambda *_: {})
    assert fidelity(base, made, np.zeros((256, 28, 28), np.uint8), bits).collapsed is warned
