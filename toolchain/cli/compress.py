"""`glyphpress prune`, `sensitivity` and `distill`: fewer channels, zeros, or a smaller model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from toolchain.cli import complete, console, options, values
from toolchain.cli.checkpoint_options import checkpoint_options
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from toolchain.checkpoint.load import CheckpointRequest
    from toolchain.commands.compress import Compressed
    from toolchain.core.context import RunContext
    from toolchain.recipe import Prune


METHODS = ("structured", "magnitude", "n:m")
IMPORTANCES = ("l1", "l2", "taylor", "bn-scale", "hessian")


def method_option(*methods: str) -> Callable[[Command], Command]:
    """Add `--method`, one of `methods`."""
    others = "magnitude sets" if methods[1:] == ("magnitude",) else "the others set"
    return click.option(
        "--method",
        type=values.Choice(methods),
        default=methods[0],
        show_default=True,
        help=f"structured removes whole channels; {others} weights to zero, which makes the packed file smaller.",
    )


def importance_options(command: Command) -> Command:
    """Add `--importance` and `--round-to`, which structured pruning takes."""
    command = click.option(
        "--round-to",
        type=values.Whole(1),
        default=8,
        show_default=True,
        help="Keep channel counts multiples of this.",
    )(command)
    return click.option(
        "--importance",
        type=values.Choice(IMPORTANCES),
        default="l2",
        show_default=True,
        help="Structured: how channels are ranked; the least important are removed first.",
    )(command)


def amount_options(command: Command) -> Command:
    """Add the options that say how much goes, and in how many rounds."""
    for option in reversed(_AMOUNTS):
        command = option(command)
    return command


def _layers(ctx: click.Context, param: click.Parameter, settings: tuple[str, ...]) -> dict[str, float]:
    """Return layer -> ratio, parsed from values such as `features.conv1=25%`."""
    ratios: dict[str, float] = {}
    for setting in settings:
        layer, equals, ratio = setting.rpartition("=")
        if not equals or not layer:
            raise click.BadParameter(f"'{setting}' is not LAYER=RATIO; write features.conv1=25%")
        if layer in ratios:
            raise click.BadParameter(f"{layer} is given two ratios; give one")
        ratios[layer] = values.PROPER_SHARE.convert(ratio, param, ctx)
    return ratios


_AMOUNTS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--ratio", type=values.PROPER_SHARE, help="Share of the channels, or of the weights, to remove. Default: 25%."
    ),
    click.option("--macs", type=values.COUNT, help="Prune to at most this many multiply-accumulates, such as 3M."),
    click.option("--parameters", type=values.COUNT, help="Prune to at most this many parameters, such as 120k."),
    click.option(
        "--bytes", type=values.SIZE, help="Prune until the float parameters take at most this, such as 250KB."
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="LAYER=RATIO",
        shell_complete=complete.PRUNED_LAYER,
        callback=_layers,
        help="Ratio of one layer, such as features.conv1=25% (repeatable).",
    ),
    click.option(
        "--pattern",
        default="2:4",
        show_default=True,
        shell_complete=complete.PATTERN,
        help="n:m: keep n of every m weights.",
    ),
    click.option(
        "--scope",
        type=values.Choice(["layer", "global"]),
        default="layer",
        show_default=True,
        help="The same ratio in each layer, or one ranking over all.",
    ),
    click.option(
        "--iterations", type=values.Whole(1, 100), default=1, show_default=True, help="Number of pruning rounds."
    ),
    click.option(
        "--epochs",
        type=values.EPOCHS_OR_NONE,
        default=4,
        show_default=True,
        help="Epochs of fine-tuning per round.",
    ),
    click.option(
        "--soft",
        type=values.SHARE,
        default="0%",
        show_default=True,
        help="Fine-tuning: weight of the unpruned model's answers (distillation).",
    ),
    click.option(
        "--temperature",
        type=values.Finite(1, 20),
        default=2.0,
        show_default=True,
        help="Temperature of those answers.",
    ),
)


def _prune_step(settings: dict[str, Any]) -> Prune:
    """Return the step that the options describe; raises UsageProblem where they contradict each other."""
    from toolchain.recipe import Prune

    amounts = (settings[name] for name in ("ratio", "macs", "parameters", "bytes"))
    if not settings["layers"] and settings["method"] != "n:m" and all(amount is None for amount in amounts):
        settings |= {"ratio": 0.25}
    return Prune.from_options(**settings)


def _show(result: Compressed, output: Path, command: str, *, as_json: bool) -> None:
    """Print what a step made of a checkpoint."""
    model, compared = result.model, result.compared
    if as_json:
        digest, beside = model.checkpoint_sha256, {"history": model.history, "compared": asdict(compared)}
        warnings = {"warnings": [result.warning]} if result.warning else {}
        console.emit(command, {"out": str(output), "sha256": digest, **beside, **warnings})
        return
    for line in (f"{output}: {model.history[-1]}", *model.history[:-1], str(compared)):
        console.tell(line)
    if result.warning:
        console.tell(f"warning: {result.warning}")


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@method_option(*METHODS)
@importance_options
@amount_options
@click.option("-o", "--output", type=values.OUTPUT_FILE, required=True, help="The .pt2 program to write.")
@options.run_options(seed=True, threads=0, resume=True, force=True)
@options.json_option
@options.names_options()
def prune(
    *,
    checkpoint: str,
    request: CheckpointRequest,
    data: str,
    output: Path,
    context: RunContext,
    as_json: bool,
    **settings: Any,
) -> None:
    """Prune a checkpoint and fine-tune the rest; the result is a torch.export program for `export` and `press`.

    \b
    Example:
      glyphpress prune cnn-small --data emnist:balanced --ratio 25% -o pruned.pt2
      glyphpress prune cnn-small --data emnist:balanced --macs 3M -o s.pt2
    """
    from toolchain.commands.compress import compress_checkpoint

    step = _prune_step(settings)
    result = compress_checkpoint(checkpoint, request, step, output, data=data, context=context)
    _show(result, output, "prune", as_json=as_json)


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@method_option("structured", "magnitude")
@importance_options
@click.option(
    "--tolerance",
    type=values.POINTS,
    default="1pp",
    show_default=True,
    help="Largest drop in accuracy that a layer may cause.",
)
@click.option("-o", "--output", type=values.OUTPUT_FILE, help="Save the curves as JSON.")
@click.option("--plot", "picture", type=values.OUTPUT_FILE, help="Draw the curves, one chart per layer (.svg).")
@click.option("--recipe", "recipe_file", type=values.OUTPUT_FILE, help="Write the proposal as a recipe (.toml).")
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
@options.names_options()
def sensitivity(
    *,
    checkpoint: str,
    request: CheckpointRequest,
    data: str,
    output: Path | None,
    picture: Path | None,
    recipe_file: Path | None,
    context: RunContext,
    as_json: bool,
    **settings: Any,
) -> None:
    """Prune each layer alone at rising ratios, measure the accuracy, and propose a ratio for each layer.

    Accuracy is measured on validation images of the train split, never on the test split. --recipe writes a file for
    `press --recipe`.

    \b
    Example:
      glyphpress sensitivity cnn-small --data emnist:balanced --plot layers.svg
      glyphpress sensitivity cnn-small --data emnist:balanced --recipe mine.toml
    """
    from targets.host.text import json_text
    from toolchain.commands.compress import proposed_recipe, sensitivity_of
    from toolchain.core.files import refuse_unfit, write_whole
    from toolchain.core.json_codec import to_json
    from toolchain.report.pictures import sensitivity_svg, show_sensitivity

    for path, suffix in ((output, ".json"), (picture, ".svg"), (recipe_file, ".toml")):
        if path:
            refuse_unfit(path, suffix, force=context.force)
    curves = sensitivity_of(checkpoint, request, data=data, context=context, **settings)
    if as_json:
        console.emit("sensitivity", to_json(curves))
    else:
        show_sensitivity(curves, console.out())
    # Last, so that a file that cannot be written costs no result.
    if output:
        write_whole(output, json_text(to_json(curves), indent=1) + "\n", force=context.force)
    if picture:
        write_whole(picture, sensitivity_svg(curves), force=context.force)
    if recipe_file:
        write_whole(recipe_file, proposed_recipe(curves, recipe_file.stem).toml(), force=context.force)


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@click.option(
    "--student",
    default="cnn-small",
    show_default=True,
    metavar="NAME",
    shell_complete=complete.MODEL,
    help="A reference architecture, with fresh weights.",
)
@click.option("--channels", type=values.Numbers(), help="Channels of its convolutions, such as 16,16,32,56,72.")
@click.option(
    "--bytes",
    metavar="SHARE|SIZE",
    help="Choose the channels: of the static-int4 .onnx at most, a share of the float one such as 1/20, or 16KiB.",
)
@click.option(
    "--dropout", type=values.Finite(0, 1, max_open=True), help="Dropout in its training. Default: the architecture's."
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    shell_complete=complete.CHECKPOINT,
    help="Learn from this checkpoint's answers instead of CHECKPOINT's, for example a larger model's.",
)
@click.option("--epochs", type=values.EPOCHS, default=24, show_default=True, help="Passes over the train split.")
@click.option(
    "--augment", type=values.Finite(0, 3), default=1.0, show_default=True, help="Strength of augmentation; 0 for none."
)
@click.option(
    "--temperature",
    type=values.Finite(1, 20),
    default=2.0,
    show_default=True,
    help="Temperature of the teacher's answers.",
)
@click.option(
    "--soft",
    type=values.SHARE_ABOVE_NONE,
    default="90%",
    show_default=True,
    help="Weight of the teacher's answers.",
)
@click.option("-o", "--output", type=values.OUTPUT_FILE, required=True, help="The .pt2 program to write.")
@options.run_options(seed=True, threads=0, resume=True, force=True)
@options.json_option
@options.names_options()
def distill(
    *,
    checkpoint: str,
    request: CheckpointRequest,
    data: str,
    output: Path,
    context: RunContext,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fit a smaller model to a checkpoint's answers; the result is a torch.export program for `export` and `press`.

    \b
    Example:
      glyphpress distill cnn-small --data emnist:balanced -o student.pt2
      glyphpress distill cnn-small --data emnist:balanced --bytes 1/20 -o s.pt2
    """
    from toolchain.commands.compress import compress_checkpoint
    from toolchain.recipe import Distill

    fields = {key: value for key, value in settings.items() if value is not None}
    result = compress_checkpoint(
        checkpoint, request, Distill.from_options(**fields), output, data=data, context=context
    )
    _show(result, output, "distill", as_json=as_json)
