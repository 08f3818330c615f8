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
def measured(float_model: FloatModel, digits: Dataset) -> Sensitivity:
    return sensitivity(float_model, digits, tolerance=0.02, context=RunContext(threads=1))


def test_each_layer_falls_as_more_of_it_goes_and_the_proposal_keeps_within_the_tolerance(measured: Sensitivity) -> None:
    assert [curve.layer for curve in measured.curves] == [f"features.conv{number}" for number in range(1, 6)]
    assert measured.images == 598
    assert measured.curves[-1].tied == ("features.pool",)
    assert measured.refused == {"classifier": "it gives the logits"}
    for curve in measured.curves:
        left = [point.left for point in curve.points]
        assert left == sorted(set(left), reverse=True)
        assert all(width % 8 == 0 and width < curve.whole for width in left)
        assert curve.points[-1].accuracy < measured.accuracy
        best = measured.proposal.get(curve.layer, 0.0)
        assert all(measured.accuracy - point.accuracy <= 0.02 + 1e-9 for point in curve.points if point.ratio <= best)
        above = [point for point in curve.points if point.ratio > best]
        assert not above or measured.accuracy - above[0].accuracy > 0.02
    assert measured.proposal
    assert measured.together is not None


def test_the_proposal_is_a_recipe_that_prunes_to_what_was_tried(
    measured: Sensitivity, float_model: FloatModel, digits: Dataset
) -> None:
    recipe = parse(proposed_recipe(measured, "Mine_2").toml(), "mine.toml")
    assert recipe.name == "mine-2"
    (step,) = recipe.shaping
    assert step.layers == measured.proposal
    bare = prune(
        float_model, step.model_copy(update={"epochs": 0}), digits, context=RunContext(threads=1)
    ).torch_module("the test")
    assert measured.together is not None
    assert sum(p.numel() for p in bare.parameters()) == measured.together.parameters


def test_single_weights_can_be_tried_too(float_model: FloatModel, digits: Dataset) -> None:
    measured = sensitivity(float_model, digits, method="magnitude", context=RunContext(threads=1))
    assert "classifier" in {curve.layer for curve in measured.curves}
    assert all(
        point.left == pytest.approx(c.whole * (1 - point.ratio), abs=1) for c in measured.curves for point in c.points
    )
    assert parse(proposed_recipe(measured, "m").toml(), "m.toml").shaping[0].method == "magnitude"


def test_a_test_split_and_a_hopeless_tolerance_are_refused(
    measured: Sensitivity, float_model: FloatModel, digits_test: Dataset
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
    none = Sensitivity(**{name: getattr(measured, name) for name in measured.__dataclass_fields__} | {"proposal": {}})
    with pytest.raises(StageError, match="raise --tolerance"):
        proposed_recipe(none, "none")


def test_the_picture_holds_a_chart_a_layer_with_the_proposal_ringed(measured: Sensitivity) -> None:
    picture = ElementTree.fromstring(sensitivity_svg(measured))
    space = {"svg": "http://www.w3.org/2000/svg"}
    charts = picture.findall("svg:g", space)
    assert len(charts) == len(measured.curves)
    for chart, curve in zip(charts, measured.curves, strict=True):
        rings = [circle for circle in chart.findall("svg:circle", space) if circle.get("r") == "6"]
        assert len(rings) == (curve.layer in measured.proposal)
        assert len(chart.findall("svg:circle", space)) == len(curve.points) + 1 + len(rings)
        assert curve.layer in {text.text for text in chart.findall("svg:text", space)}


@pytest.mark.slow
def test_the_command_writes_curves_picture_and_recipe(glyphpress, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("sensitivity", checkpoint, "--data", "builtin:digits", "--threads", "1", "--tolerance", "2pp")
    saved, picture, recipe = tmp_path / "s.json", tmp_path / "s.svg", tmp_path / "mine.toml"
    done = glyphpress(*arguments, "-o", saved, "--plot", picture, "--recipe", recipe)
    assert done.code == 0, done.err
    assert "features.conv5 (with features.pool)" in done.out
    assert json.loads(saved.read_text())["proposal"] == find(str(recipe)).shaping[0].layers
    assert picture.read_text().startswith("<svg")
    again = glyphpress(*arguments, "--plot", picture)
    assert (again.code, "--force" in again.err) == (2, True)
    assert glyphpress(*arguments, "--plot", tmp_path / "s.png").code == 2
