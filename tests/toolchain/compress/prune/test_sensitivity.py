"""Which layers can be pruned: read on a part of the train split, shown, drawn, and proposed as a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from calibration.dataset import Dataset
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.compress import proposed_recipe
from toolchain.compress.prune import prune
from toolchain.compress.prune.sensitivity import Sensitivity, sensitivity
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.recipe import find, parse
from toolchain.report.pictures import sensitivity_svg


@pytest.fixture(scope="module")
def found(float_model: FloatModel, digits: Dataset) -> Sensitivity:
    return sensitivity(float_model, digits, tolerance=0.02, context=RunContext(threads=1))


def test_each_layer_falls_as_more_of_it_goes_and_the_proposal_keeps_within_the_tolerance(found: Sensitivity) -> None:
    assert [curve.layer for curve in found.curves] == [f"features.conv{number}" for number in range(1, 6)]
    assert found.images == 598
    assert found.curves[-1].tied == ("features.pool",)
    assert found.refused == {"classifier": "it gives the logits"}
    for curve in found.curves:
        left = [point.left for point in curve.points]
        assert left == sorted(set(left), reverse=True)
        assert all(width % 8 == 0 and width < curve.whole for width in left)
        assert curve.points[-1].accuracy < found.accuracy
        best = found.proposal.get(curve.layer, 0.0)
        assert all(found.accuracy - point.accuracy <= 0.02 + 1e-9 for point in curve.points if point.ratio <= best)
        above = [point for point in curve.points if point.ratio > best]
        assert not above or found.accuracy - above[0].accuracy > 0.02
    assert found.proposal
    assert found.together is not None


def test_the_proposal_is_a_recipe_that_prunes_to_what_was_tried(
    found: Sensitivity, float_model: FloatModel, digits: Dataset
) -> None:
    recipe = parse(proposed_recipe(found, "Mine_2").toml(), "mine.toml")
    assert recipe.name == "mine-2"
    (step,) = recipe.shaping
    assert step.layers == found.proposal
    bare = prune(
        float_model, step.model_copy(update={"epochs": 0}), digits, context=RunContext(threads=1)
    ).torch_module("the test")
    assert found.together is not None
    assert sum(p.numel() for p in bare.parameters()) == found.together.parameters


def test_single_weights_can_be_tried_too(float_model: FloatModel, digits: Dataset) -> None:
    found = sensitivity(float_model, digits, method="magnitude", context=RunContext(threads=1))
    assert "classifier" in {curve.layer for curve in found.curves}
    assert all(
        point.left == pytest.approx(c.whole * (1 - point.ratio), abs=1) for c in found.curves for point in c.points
    )
    assert parse(proposed_recipe(found, "m").toml(), "m.toml").shaping[0].method == "magnitude"


def test_a_test_split_and_a_hopeless_tolerance_are_refused(
    found: Sensitivity, float_model: FloatModel, digits_test: Dataset
) -> None:
    with pytest.raises(UsageProblem, match="test split"):
        sensitivity(float_model, digits_test, context=RunContext())
    with pytest.raises(UsageProblem, match="belong to structured"):
        sensitivity(
            float_model,
            digits_test.__class__.of(digits_test.images, digits_test.labels, digits_test.classes, "mine", "train"),
            method="magnitude",
            importance="l1",
            context=RunContext(),
        )
    none = Sensitivity(**{name: getattr(found, name) for name in found.__dataclass_fields__} | {"proposal": {}})
    with pytest.raises(StageError, match="raise --tolerance"):
        proposed_recipe(none, "none")


def test_the_picture_holds_a_chart_a_layer_with_the_proposal_ringed(found: Sensitivity) -> None:
    picture = ElementTree.fromstring(sensitivity_svg(found))
    space = {"svg": "http://www.w3.org/2000/svg"}
    charts = picture.findall("svg:g", space)
    assert len(charts) == len(found.curves)
    for chart, curve in zip(charts, found.curves, strict=True):
        rings = [circle for circle in chart.findall("svg:circle", space) if circle.get("r") == "6"]
        assert len(rings) == (curve.layer in found.proposal)
        assert len(chart.findall("svg:circle", space)) == len(curve.points) + 1 + len(rings)
        assert curve.layer in {text.text for text in chart.findall("svg:text", space)}


@pytest.mark.slow
def test_the_command_writes_curves_picture_and_recipe(glyphpress, checkpoint: Path, tmp_path: Path) -> None:
    words = ("sensitivity", checkpoint, "--data", "builtin:digits", "--threads", "1", "--tolerance", "2pp")
    saved, picture, recipe = tmp_path / "s.json", tmp_path / "s.svg", tmp_path / "mine.toml"
    done = glyphpress(*words, "-o", saved, "--plot", picture, "--recipe", recipe)
    assert done.code == 0, done.err
    assert "features.conv5 (with features.pool)" in done.out
    assert json.loads(saved.read_text())["proposal"] == find(str(recipe)).shaping[0].layers
    assert picture.read_text().startswith("<svg")
    again = glyphpress(*words, "--plot", picture)
    assert (again.code, "--force" in again.err) == (2, True)
    assert glyphpress(*words, "--plot", tmp_path / "s.png").code == 2
