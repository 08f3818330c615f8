"""The options of scikit-learn's models in `glyphpress train`, and the training of such a model."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from toolchain import models
from toolchain.cli import console, options, values
from toolchain.cli.help_page import PanelOption
from toolchain.cli.options import Command
from toolchain.core.errors import PolicyError, UsageProblem

if TYPE_CHECKING:
    from toolchain.cli.setting_options import ChosenSettings
    from toolchain.core.context import RunContext
    from toolchain.models.estimator import Estimator
    from toolchain.training.estimators import FittedEstimator

_SETTINGS: dict[str, tuple[str, click.ParamType[Any], str]] = {
    "images": (
        "--images",
        values.Whole(2, 1_000_000),
        "Most training images. Default: svc 10000, random-forest 20000.",
    ),
    "gamma": ("--gamma", values.Finite(0, 1e9, min_open=True), "svc: kernel width. Default: 1/(pixels * variance)."),
    "C": ("--C", values.Finite(0, 1e9, min_open=True), "svc: cost of a training image on the wrong side. Default: 1."),
    "trees": ("--trees", values.Whole(1, 10_000), "random-forest: number of trees. Default: 150."),
    "max_depth": ("--max-depth", values.Whole(1, 1000), "Most questions of a tree for an image. Default: no limit."),
}
_SHARED = (
    *("model", "data", "data_root", "classes", "output", "config", "seed", "threads", "force", "as_json"),
    *("quiet", "verbose"),
)
"""Parameters of `train` that scikit-learn's models take too."""


def estimator_options(command: Command) -> Command:
    """Add the settings of scikit-learn's models; if one is named, it is fitted, and the command itself does not run."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        model = kwargs["model"]
        if model is not None and kwargs["starting"] is None:
            models.refuse_unknown(model)
        given = {name: value for name in _SETTINGS if (value := kwargs.pop(name)) is not None}
        if model not in models.ESTIMATORS:
            for name in given:
                owners = [each for each in models.ESTIMATORS if name in models.estimator_class(each).model_fields]
                _refuse({name}, f"{' or '.join(owners)}, not for a network")
            return command(*args, **kwargs)
        _refuse(set(_words()) - {*_SHARED, *_SETTINGS}, f"networks, not for {model}")
        if kwargs["output"] is None:
            raise click.UsageError("Missing option '-o', the .onnx file to write")
        return _train(
            given, **{name: kwargs[name] for name in ("model", "data", "output", "chosen", "context", "as_json")}
        )

    added = [
        click.option(word, name, cls=PanelOption, panel="scikit-learn's models", type=kind, default=None, help=text)
        for name, (word, kind, text) in _SETTINGS.items()
    ]
    return options.with_options(cast(Command, wrapped), added)


def _words() -> dict[str, str]:
    """Return the long name of each option of the command that runs, by its parameter."""
    context = click.get_current_context()
    assert context, "a command is running"
    return {str(parameter.name): parameter.opts[-1] for parameter in context.command.params}


def _refuse(names: Iterable[str], whose: str) -> None:
    """Raise UsageProblem if one of these options, which belong to another kind of model, was given."""
    for name, word in _words().items():
        if name in names and options.was_given(name):
            raise UsageProblem(f"{word} is for {whose}; leave it out")


def _train(
    given: dict[str, Any],
    *,
    model: str,
    data: str,
    output: Path,
    chosen: ChosenSettings,
    context: RunContext,
    as_json: bool,
) -> None:
    from toolchain.commands.train import images_to_train
    from toolchain.training.estimators import fit_estimator, refuse_unfit

    refuse_unfit(output, force=context.force)
    settings = _settings(model, chosen.config, given)
    images, test = images_to_train(data, context)
    result = fit_estimator(images, model=model, settings=settings, test=test, out=output, context=context)
    if as_json:
        console.emit("train", result.to_dict())
    else:
        _show(result)


def _settings(model: str, config: Path | None, given: dict[str, Any]) -> Estimator:
    from toolchain.training.presets import table

    estimator = models.estimator_class(model)
    stored = table(config) if config else {}
    try:
        estimator.of(model, stored)
    except UsageProblem as error:
        raise PolicyError(f"{config}: [train] {error}") from error
    return estimator.of(model, stored | given)


def _show(result: FittedEstimator) -> None:
    from toolchain.core.quantities import percent_text
    from toolchain.stats.share import wilson

    test = result.facts["test"]
    low, high = wilson(test["right"], test["images"])
    for note in result.notes:
        console.tell(note)
    console.tell(f"{result.out}: {result.facts['model']}, {result.contents.size}")
    console.tell(
        f"test accuracy {percent_text(test['accuracy'])} on {test['images']:,} images of {test['origin']}, "
        f"95 % interval {percent_text(low)} to {percent_text(high)}"
    )
    console.tell(f"answers otherwise than scikit-learn's predict: {test['differing']:,} of {test['compared']:,} images")
