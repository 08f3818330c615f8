"""Recipe: which steps a model is pressed by; impossible orders are rejected when it is built."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from targets.errors import nearest, translated
from toolchain.errors import PolicyError, UsageProblem
from toolchain.recipe.distill import Distill
from toolchain.recipe.equalize import Equalize
from toolchain.recipe.prune import Prune
from toolchain.recipe.qat import Qat
from toolchain.recipe.quantize import Quantize, refusal
from toolchain.recipe.strict import Strict
from toolchain.written import WRITTEN, said

Shaping = Prune | Distill | Equalize | Qat
STEPS: tuple[type[Strict], ...] = (Prune, Distill, Equalize, Qat, Quantize)
KINDS = {str(step.model_fields["kind"].default): step for step in STEPS}
Step = Annotated[Shaping | Quantize, Field(discriminator="kind")]


class Recipe(Strict):
    """Named steps in order, and the formats they end in."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: str = ""
    formats: tuple[Literal["onnx", "tflite"], ...] = Field(default=("onnx", "tflite"), min_length=1)
    steps: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(isinstance(step, Quantize) for step in self.steps[:-1]):
            raise ValueError("quantize must be the last step: a quantized file cannot be pruned or quantized again")
        last = self.quantize
        taught = [number for number, step in enumerate(self.steps) if isinstance(step, Qat)]
        if taught and last and not last.per_channel:
            raise ValueError("qat rounds weights channel by channel; leave per_channel out")
        if taught and (taught != [len(self.steps) - 2] or not last or not last.calibrated):
            raise ValueError(
                "qat trains for a static scheme: put it once, right before the quantize step that names it"
            )
        for kind in self.formats if last else ():
            if last and (reason := refusal(last, kind)):
                others = [other for other in self.formats if other != kind]
                fix = f"; or set formats = {json.dumps(others)}" if others else ""
                raise ValueError(f"no {last.scheme} in {kind}: {reason}{fix}")
        if last and last.ranges and len(self.formats) > 1:
            raise ValueError('ranges belong to one file; set formats = ["onnx"] or ["tflite"]')
        return self

    @property
    def quantize(self) -> Quantize | None:
        """Return the quantization step, if there is one."""
        return next((step for step in self.steps if isinstance(step, Quantize)), None)

    @property
    def shaping(self) -> tuple[Shaping, ...]:
        """Return the steps from model to model, in order: all but the quantization."""
        return tuple(step for step in self.steps if not isinstance(step, Quantize))

    @property
    def needs_training(self) -> bool:
        """Return whether training images are needed: to calibrate, to train, or to choose layers."""
        last = self.quantize
        shaped = any(not isinstance(step, Equalize) for step in self.shaping)
        return shaped or (last is not None and (last.needs_images or last.fallback > 0))

    def toml(self) -> str:
        """Return the recipe as a TOML file with every default written out; `parse` is the inverse."""
        # TOML has no word for None, which is what a key that is left out means.
        values = self.model_dump(mode="json", exclude_none=True)
        steps = values.pop("steps")
        return "\n".join([_table(values), *(f"[[steps]]\n{_table(step)}" for step in steps)])


def _table(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    # A JSON string, number or array of strings is the same text in TOML.
    return json.dumps(value, ensure_ascii=False)


@cache
def shipped() -> dict[str, Recipe]:
    """Return the recipes that come with glyphpress, by name."""
    folder = files("toolchain") / "recipe" / "shipped"
    found = [
        parse(entry.read_text(encoding="utf-8"), entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    ]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}


def find(words: str) -> Recipe:
    """Return a shipped recipe by name, or read a TOML file.

    Raises UsageProblem for an unknown name and PolicyError for a file that is no recipe.
    """
    if words in shipped():
        return shipped()[words]
    path = Path(words)
    if path.suffix != ".toml":
        near = nearest(words, shipped(), "`glyphpress recipe list` shows the shipped ones.")
        raise UsageProblem(f"no recipe '{words}'; {near} A file of your own ends in .toml")
    if not path.is_file():
        raise UsageProblem(f"{path}: no such recipe file; `glyphpress recipe list` shows the shipped ones")
    with translated(lambda reason: PolicyError(f"{path}: not TOML in UTF-8 ({reason}); save it as that")):
        return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, origin: str) -> Recipe:
    """Read a recipe from TOML; raises PolicyError naming `origin` and the first thing that is wrong."""
    try:
        return Recipe.model_validate(tomllib.loads(text), context=WRITTEN)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{origin}: not TOML: {error}") from error
    except ValidationError as error:
        why = _explain(error)
        raise PolicyError(
            f"{origin}: {why}{' See' if why.endswith('?') else '; see'} `glyphpress recipe schema`"
        ) from error


def _explain(error: ValidationError) -> str:
    """Return one line about the first thing that is wrong: which step, which key, which value."""
    # A key that is not known often explains the one that is missing.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = list(first["loc"])
    where = ""
    if place[:1] == ["steps"] and len(place) > 1:
        where = f"step {int(place[1]) + 1}{f' ({place[2]})' if len(place) > 2 else ''}: "
        place = place[3:]
    key = ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        known = KINDS[str(first["loc"][2])] if where else Recipe
        return f"{where}unknown key '{key}'; {nearest(key, known.model_fields, 'it is none of ours')}"
    if first["type"] == "missing":
        return f"{where}'{key}' is missing"
    if first["type"].startswith("union_tag"):
        kind = first["input"].get("kind") if isinstance(first["input"], dict) else None
        return f"{where}{f'no kind of step is {kind!r}' if kind else 'its kind is missing'}; give {', '.join(KINDS)}"
    return f"{where}'{key}' cannot be {first['input']!r}: {said(first)}" if key else f"{where}{said(first)}"


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file."""
    return Recipe.model_json_schema()
