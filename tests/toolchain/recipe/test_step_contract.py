"""What every step of a recipe keeps; and what a new one takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from calibration.dataset import Dataset
from calibration.errors import DataNotFound
from targets.metadata import load_artifact
from tests.fixtures.extended import Extended
from tests.fixtures.lazy import torch
from tests.fixtures.quantized import read
from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress import ModelStep, StepContext
from toolchain.core.context import RunContext
from toolchain.core.errors import PolicyError
from toolchain.recipe import KINDS, STEPS, Quantize, Recipe, parse

LEAST: dict[str, dict[str, Any]] = {
    "prune": {"ratio": 0.25, "epochs": 1},
    "distill": {"epochs": 1},
    "equalize": {},
    "qat": {"epochs": 1},
    "quantize": {"scheme": "static-int8"},
}
"""Kind -> the least work that it can be asked for."""
MODEL_STEPS = [kind for kind, step in KINDS.items() if issubclass(step, ModelStep)]


def steps_of(kind: str) -> tuple[Any, ...]:
    """Return the steps of a recipe that has such a step."""
    step = KINDS[kind].model_validate(LEAST[kind])
    return (step, Quantize(scheme="static-int8")) if kind == "qat" else (step,)


def answers(model: FloatModel, glyphs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.torch_module("the test")(torch.from_numpy(model.preprocess.apply(glyphs))).numpy()


@pytest.mark.parametrize("kind", STEPS)
def test_its_settings_are_frozen_checked_and_written_as_they_are_read(kind: str) -> None:
    recipe = Recipe(name="mine", steps=steps_of(kind))
    assert recipe.steps[0].kind == kind
    assert parse(recipe.toml(), "mine.toml") == recipe
    with pytest.raises(ValidationError, match="frozen"):
        recipe.steps[0].kind = "other"
    with pytest.raises(PolicyError, match=rf"step 1 \({kind}\): unknown key 'no_such_key'"):
        parse(recipe.toml().replace("[[steps]]", "[[steps]]\nno_such_key = 1", 1), "mine.toml")


@pytest.mark.parametrize("kind", MODEL_STEPS)
def test_applied_twice_it_gives_the_same_model_and_leaves_the_given_one(
    kind: str, float_model: FloatModel, digits: Dataset
) -> None:
    few = Dataset.of(digits.images[:100], digits.labels[:100], digits.classes, digits.origin, "train")
    recipe, run = Recipe(name="mine", steps=steps_of(kind)), RunContext(seed=1, threads=1)
    glyphs = digits.images[:32]
    before = answers(float_model, glyphs)
    recipe.check(float_model, run, few)
    made = [recipe.apply(float_model, run, few) for _ in range(2)]
    assert (answers(float_model, glyphs) == before).all()
    first, second = (answers(one, glyphs) for one in made)
    assert (first == second).all()
    assert np.isfinite(first).all()
    assert (first.argmax(1) == before.argmax(1)).mean() > 0.5
    assert made[0].classes == float_model.classes
    assert made[0].history[:-1] == float_model.history
    assert made[0].root_sha256 == float_model.root_sha256


@pytest.mark.parametrize("kind", MODEL_STEPS)
def test_it_needs_training_images_exactly_where_it_says_so(kind: str, float_model: FloatModel) -> None:
    step, *following = steps_of(kind)
    context = StepContext(RunContext(threads=1), DataNotFound("there are none"), float_model, tuple(following))
    if step.needs_training:
        with pytest.raises(DataNotFound, match="there are none; this recipe needs them"):
            step.apply(float_model, context)
    else:
        assert step.apply(float_model, context).history


SCALE = '''
import copy
from dataclasses import replace
from typing import Literal

from pydantic import Field

from toolchain.compress import ModelStep


class Scale(ModelStep):
    """Every logit times a factor."""

    kind: Literal["scale"] = "scale"
    factor: float = Field(gt=0)

    @property
    def needs_training(self):
        return False

    def apply(self, model, context):
        module = copy.deepcopy(model.torch_module("scaling"))
        *_, last = [part for part in module.modules() if part._parameters]
        for parameter in last.parameters():
            parameter.data *= self.factor
        return replace(model.with_module(module), history=(*model.history, f"scaled by {self.factor}"))
'''
RECIPE = 'name = "scaled"\nformats = ["onnx"]\n[[steps]]\nkind = "scale"\nfactor = 0.5\n'


def test_a_new_step_is_one_file_and_one_line(checkpoint: Path, digits_test: Dataset, tmp_path: Path) -> None:
    extended = Extended.of(
        tmp_path,
        "toolchain/compress/scale.py",
        SCALE,
        table="toolchain/recipe/__init__.py",
        after="STEPS: dict[str, str] = {",
        line='    "scale": "toolchain.compress.scale:Scale",',
    )
    file, out = tmp_path / "scaled.toml", tmp_path / "out"
    file.write_text(RECIPE)
    data = ("--data", "builtin:digits", "--format", "onnx", "--seconds", "20ms")
    done = extended.run("press", checkpoint, "--recipe", file, *data, "--out", out)
    # The verdict is not the subject: half the logits are less confident.
    assert done.returncode in (0, 1, 5), done.stderr
    whole, scaled = (load_artifact(out / f"{checkpoint.stem}.{recipe}.onnx") for recipe in ("float", "scaled"))
    assert scaled.recipe == "scaled"
    images = digits_test.images[:64]
    assert np.allclose(read(scaled, images), read(whole, images) / 2, atol=1e-4)
    assert (out / f"{checkpoint.stem}.scaled.pt2").exists()
    file.write_text(RECIPE.replace("factor", "facto"))
    refused = extended.run("press", checkpoint, "--recipe", file, *data, "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "step 1 (scale): unknown key 'facto'; did you mean factor?" in refused.stderr
