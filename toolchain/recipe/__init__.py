"""Recipes: the steps by which a model is pressed; impossible orders are refused when a recipe is built."""

from __future__ import annotations

import json
import tomllib
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import Field, ValidationError, model_validator

from glyphpress.registry import Registry, instance
from targets.errors import nearest, translated
from targets.host.text import as_written
from toolchain.compress import ModelStep, StepContext
from toolchain.compress.distill import Distill as Distill
from toolchain.compress.equalize import Equalize as Equalize
from toolchain.compress.prune import Prune as Prune
from toolchain.compress.qat import Qat as Qat
from toolchain.core.errors import PolicyError, UsageProblem
from toolchain.core.json_codec import problem_text
from toolchain.core.settings import FROM_FILE, Step, Strict, refused
from toolchain.formats.catalog import pressed
from toolchain.quantize.step import Calibration as Calibration
from toolchain.quantize.step import Quantize as Quantize

if TYPE_CHECKING:
    from calibration.dataset import Dataset
    from calibration.errors import DataNotFound
    from targets.artifact import Format
    from toolchain.checkpoint.float_model import FloatModel
    from toolchain.core.context import RunContext

STEPS: dict[str, str] = {
    "prune": "toolchain.compress.prune:Prune",
    "distill": "toolchain.compress.distill:Distill",
    "equalize": "toolchain.compress.equalize:Equalize",
    "qat": "toolchain.compress.qat:Qat",
    "quantize": "toolchain.quantize.step:Quantize",
}
"""Kind of step -> "module:Class": a `ModelStep`, or a step that works on a file."""

KINDS: dict[str, type[Step]] = {kind: resolve_name(reference) for kind, reference in STEPS.items()}
if TYPE_CHECKING:
    AnyStep = ModelStep | Quantize
    PressedFormat = Format
else:
    AnyStep = Annotated[Union[tuple(KINDS.values())], Field(discriminator="kind")]  # noqa: UP007 (of a table)
    PressedFormat = Literal[*pressed()]


class Recipe(Strict):
    """A named sequence of steps, and the formats of the files it makes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str = ""
    formats: tuple[PressedFormat, ...] = Field(default=pressed(), min_length=1)
    steps: tuple[AnyStep, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for step in self.steps[:-1]:
            if step.ends:
                raise ValueError(
                    f"{step.kind} must be the last step: a quantized file cannot be pruned or quantized again"
                )
        for number, step in enumerate(self.steps):
            step.check_order(self.steps[:number], self.steps[number + 1 :])
        if last := self.quantize:
            self._check_formats(last)
        if not last and any(isinstance(step, Distill) and step.bytes for step in self.steps):
            raise ValueError(
                "`bytes` are those of a quantized file; let the recipe end in quantize, or give `channels`"
            )
        return self

    def _check_formats(self, last: Quantize) -> None:
        for kind in self.formats:
            if reason := last.refusal(kind):
                others = [other for other in self.formats if other != kind]
                fix = f"; or set formats = {json.dumps(others)}" if others else ""
                raise ValueError(f"no {last.scheme} in {kind}: {reason}{fix}")
        if last.ranges and len(self.formats) > 1:
            choices = " or ".join(f'["{name}"]' for name in self.formats)
            raise ValueError(f"`ranges` belong to one file; set formats = {choices}")

    @property
    def quantize(self) -> Quantize | None:
        """Return the quantization step, if there is one."""
        return next((step for step in self.steps if isinstance(step, Quantize)), None)

    @property
    def shaping(self) -> tuple[ModelStep, ...]:
        """Return the steps that change the model, in order: all but the quantization."""
        return tuple(step for step in self.steps if isinstance(step, ModelStep))

    @property
    def needs_training(self) -> bool:
        """Return whether any step needs training images: to calibrate, to train, or to choose layers."""
        return any(step.needs_training for step in self.steps)

    def taught_by(self, teacher: str | None) -> Recipe:
        """Return the recipe with another checkpoint as the teacher of every step that has one; None changes nothing.

        Raises UsageProblem where no step has a teacher.
        """
        if teacher is None:
            return self
        if not any(hasattr(step, "teacher") for step in self.steps):
            raise UsageProblem(f"no step of recipe {self.name} learns from a teacher; leave --teacher out")
        changes = {"teacher": teacher}
        steps = [step.model_copy(update=changes) if hasattr(step, "teacher") else step for step in self.steps]
        return self.model_copy(update={"steps": tuple(steps)})

    def planned(self, model: FloatModel, run: RunContext, training: Dataset | DataNotFound) -> Recipe:
        """Return the recipe with the settings chosen that follow the model, such as a student's channels.

        Raises StageError where none can be chosen.
        """
        chosen = {id(step): step.planned(model, context) for step, context in self._contexts(model, run, training)}
        return self.model_copy(update={"steps": tuple(chosen.get(id(step), step) for step in self.steps)})

    def check(self, model: FloatModel, run: RunContext, training: Dataset | DataNotFound) -> None:
        """Raise what the first step would raise before it trains: recipes before this one may train for an hour."""
        for step, context in self._contexts(model, run, training)[:1]:
            step.check(model, context)

    def apply(self, model: FloatModel, run: RunContext, training: Dataset | DataNotFound) -> FloatModel:
        """Apply all steps but the quantization. training: the train split, or the error that says why there is none."""
        for step, context in self._contexts(model, run, training):
            model = step.apply(model, context)
        return model

    def untrained(self, model: FloatModel, run: RunContext, training: Dataset | DataNotFound) -> FloatModel | None:
        """Return the student that the steps build, before any training; None where they build none."""
        for step, context in reversed(self._contexts(model, run, training)):
            if step.builds_student:
                return step.untrained(model, context)
        return None

    def _contexts(
        self, model: FloatModel, run: RunContext, training: Dataset | DataNotFound
    ) -> list[tuple[ModelStep, StepContext]]:
        return [
            (step, StepContext(run, training, model, self.steps[number + 1 :]))
            for number, step in enumerate(self.steps)
            if isinstance(step, ModelStep)
        ]

    def toml(self) -> str:
        """Return the recipe as a TOML file with every default; `parse` is the inverse."""
        # TOML cannot write None, which a missing key stands for.
        values = self.model_dump(mode="json", exclude_none=True)
        steps = values.pop("steps")
        return "\n".join([_toml_table(values), *(f"[[steps]]\n{_toml_table(step)}" for step in steps)])


def _toml_table(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    # A JSON string, number or array of strings is valid TOML.
    return json.dumps(value, ensure_ascii=False)


@cache
def shipped() -> dict[str, Recipe]:
    """Return the recipes that come with glyphpress, by name."""
    folder = files("toolchain") / "recipe" / "shipped"
    recipes = [
        parse(entry.read_text(encoding="utf-8"), entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    ]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda recipe: recipe.name)}


REGISTRY = Registry("recipe", shipped, instance(Recipe))
"""The shipped recipes, and those of plug-ins."""


def find(name_or_path: str) -> Recipe:
    """Return a recipe by its name, shipped or of a plug-in, or read a TOML file.

    Raises UsageProblem for an unknown name and PolicyError for a file that is no recipe.
    """
    with suppress(KeyError):
        return REGISTRY.get(name_or_path)
    path = Path(name_or_path)
    if path.suffix != ".toml":
        near = nearest(name_or_path, REGISTRY, "`glyphpress recipe list` shows the shipped ones.")
        raise UsageProblem(f"no recipe '{name_or_path}'; {near} A file of your own ends in .toml")
    if not path.is_file():
        raise UsageProblem(f"{path}: no such recipe file; `glyphpress recipe list` shows the shipped ones")
    with translated(lambda reason: PolicyError(f"{path}: not TOML in UTF-8 ({reason}); save it as that")):
        return parse(path.read_text(encoding="utf-8-sig"), str(path))


def parse(text: str, origin: str) -> Recipe:
    """Read a recipe from TOML; raises PolicyError that names `origin` and the first problem."""
    try:
        return Recipe.model_validate(tomllib.loads(text), context=FROM_FILE)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{origin}: not TOML: {error}") from error
    except ValidationError as error:
        problem = _explain(error)
        raise PolicyError(
            f"{origin}: {problem}{' See' if problem.endswith('?') else '; see'} `glyphpress schema recipe`"
        ) from error


def _explain(error: ValidationError) -> str:
    """Return one line about the first problem: which step, which key, which value."""
    # An unknown key often explains a missing one.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    location, step, known = list(first["loc"]), "", Recipe.model_fields
    if location[:1] == ["steps"] and len(location) > 1:
        kind = str(location[2]) if len(location) > 2 else ""
        step = f"step {int(location[1]) + 1}{f' ({kind})' if kind else ''}: "
        known, location = KINDS[kind].model_fields if kind in KINDS else known, location[3:]
    key = ".".join(map(str, location))
    match first["type"]:
        case "extra_forbidden":
            problem = f"unknown key '{key}'; {nearest(key, known, 'it is none of ours')}"
        case "missing":
            problem = f"'{key}' is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            name = first["input"].get("kind") if isinstance(first["input"], dict) else None
            wrong = f"no kind of step is {as_written(name)}" if name else "its kind is missing"
            problem = f"{wrong}; give {', '.join(KINDS)}"
        case _:
            problem = refused(key, first) if key else problem_text(first["msg"])
    return step + problem


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file."""
    return Recipe.model_json_schema()
