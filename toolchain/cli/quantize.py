"""`glyphpress quantize`: a float ONNX or TFLite file to one of fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from targets.host.text import argument
from toolchain.cli import complete, console, options, values
from toolchain.quantize.schemes import REGISTRY, SCHEMES

if TYPE_CHECKING:
    from targets.artifact import Artifact
    from toolchain.core.context import RunContext
    from toolchain.gate.limits.drop import DropLimit
    from toolchain.recipe import Quantize


METHODS = ("min-max", "moving-average", "percentile", "entropy", "mse")


@click.command()
@click.argument("artifact", type=values.FILE, shell_complete=complete.FLOAT_FILE)
@click.option(
    "--scheme",
    type=values.Choice(list(REGISTRY)),
    metavar="SCHEME",
    default="static-int8",
    show_default=True,
    help="; ".join(
        [
            *(f"{row.name}: {row.summary}" for row in SCHEMES.values()),
            *(f"{name}: of {plugin.package}" for name, plugin in REGISTRY.plugins().items()),
        ]
    )
    + ".",
)
@click.option("--per-tensor", is_flag=True, help="One scale for each weight tensor instead of one per channel.")
@click.option(
    "--activations",
    type=values.Choice(["uint8", "int8"]),
    help="Static: type of activations. Default: uint8 in ONNX, int8 in TFLite.",
)
@options.optional_data_option
@options.classes_option
@click.option(
    "--calibration-images",
    type=values.Whole(8),
    metavar="COUNT",
    default=512,
    show_default=True,
    help="Number of images of the train split: 8 or more, at least one per class; all if there are fewer.",
)
@click.option(
    "--calibration",
    type=values.Choice(METHODS),
    default="min-max",
    show_default=True,
    help="How ranges are chosen.",
)
@click.option(
    "--percentile",
    type=values.Finite(50, 100, min_open=True),
    default=99.99,
    show_default=True,
    help="Share of the values that --calibration percentile keeps.",
)
@click.option(
    "--ranges",
    metavar="FILE",
    shell_complete=complete.JSON_FILE,
    help="Use the ranges in a file that --save-ranges wrote.",
)
@click.option("--save-ranges", type=values.OUTPUT_FILE, help="Save the ranges to a file; `glyphpress ranges` draws it.")
@click.option("--bias-correction", is_flag=True, help="Static: correct the mean error of each layer in its bias.")
@click.option("--integer-io", is_flag=True, help="Static: take raw uint8 pixels; the preprocessing is inside the file.")
@click.option(
    "--full-range", is_flag=True, help="ONNX: use all 8 bits of int8 weights; they saturate on x86 without VNNI."
)
@click.option(
    "--keep",
    multiple=True,
    metavar="LAYER",
    shell_complete=complete.KEPT_LAYER,
    help="Keep this layer in float (repeatable); `explain` shows the names.",
)
@click.option(
    "--fallback",
    type=values.Whole(0, 100),
    default=0,
    show_default=True,
    metavar="N",
    help="If the drop is too large, try up to N files with some layers kept in float.",
)
@options.limit_options("drop", condition="with --fallback: ")
@click.option("-o", "--output", type=values.OUTPUT_FILE, required=True, help="The file to write, of the same format.")
@options.run_options(seed=True, force=True)
@options.json_option
@options.names_options(per_channel="--per-tensor", reduce_range="--full-range")
def quantize(
    *,
    artifact: Path,
    output: Path,
    per_tensor: bool,
    full_range: bool,
    data: str | None,
    save_ranges: Path | None,
    context: RunContext,
    as_json: bool,
    limits: options.Limits,
    **settings: Any,
) -> None:
    """Quantize a float artifact, or a float .onnx of your own, to 16, 8 or 4 bits.

    Static schemes take their ranges from a calibration set drawn from the train split of --data. A
    scheme that a format cannot store or run is refused with the reason. --fallback finds the fewest layers to keep in
    float so that a file passes on other images of that split, and judges that file on the test split: exit 1 or 5 if it
    does not pass there.

    \b
    Example:
      glyphpress quantize cnn.float.onnx --data emnist:balanced -o cnn.int8.onnx
      glyphpress quantize a.onnx --data emnist:balanced --fallback 8 -o b.onnx
    """
    from toolchain.commands.quantize import quantize_file
    from toolchain.gate.limits.drop import DropLimit
    from toolchain.recipe import Quantize

    step = Quantize.from_options(**settings, per_channel=not per_tensor, reduce_range=False if full_range else None)
    _refuse_unused_images(step)
    if step.fallback:
        if save_ranges:
            raise click.UsageError(
                "--save-ranges saves the ranges of one file, but --fallback tries several; leave one out"
            )
        limit = limits.chosen().settings(DropLimit)
        _quantize_within(artifact, step, output, data, limit, context=context, as_json=as_json)
        return
    if limits:
        raise click.UsageError("--policy and --max-drop are for --fallback; add it, or leave them out")
    quantized = quantize_file(artifact, step, output, data=data, save_ranges=save_ranges, context=context)
    if as_json:
        console.emit("quantize", quantized.facts())
    else:
        for line in _lines(artifact, quantized, data):
            console.tell(line)


def _refuse_unused_images(step: Quantize) -> None:
    """Raise UsageError where a number of calibration images was given, and none is read."""
    if not step.needs_images and options.was_given("calibration_images"):
        why = f"the ranges are taken from {step.ranges}" if step.ranges else f"{step.scheme} has no ranges"
        raise click.UsageError(f"--calibration-images: {why}, so no images are read for them; leave it out")


def _quantize_within(
    artifact: Path,
    step: Quantize,
    output: Path,
    data: str | None,
    limit: DropLimit | None,
    *,
    context: RunContext,
    as_json: bool,
) -> None:
    """Search for the layers to keep in float, print every trial, and judge the file that was chosen."""
    from toolchain.commands.quantize import quantize_within
    from toolchain.core.errors import UsageProblem
    from toolchain.core.json_codec import to_json
    from toolchain.gate.limit import raise_for
    from toolchain.report.gate_terminal import show_verdicts

    if not data:
        raise UsageProblem("--fallback reads images to see which layers must stay float; add --data")
    fallback, verdict = quantize_within(artifact, step, output, limit, data=data, context=context)
    if as_json:
        added = {"fallback": fallback.to_dict(), "verdict": to_json(verdict)}
        console.emit("quantize", fallback.artifact.facts() | added)
    else:
        for line in [*fallback.lines(), *_lines(artifact, fallback.artifact, data)]:
            console.tell(line)
        show_verdicts([verdict], console.out())
    raise_for([verdict])


def _lines(artifact: Path, quantized: Artifact, data: str | None) -> list[str]:
    shrink = artifact.stat().st_size / quantized.size
    change = f"{shrink:.1f}x smaller" if shrink >= 1 else f"{1 / shrink:.2f}x LARGER than {artifact.name}"
    lines = [f"{quantized.path}: {quantized.size:,} bytes, {change}", *(f"note: {note}" for note in quantized.notes)]
    fidelity = quantized.fidelity
    if fidelity is None:
        return [*lines, f"not compared with {artifact.name}: {_why_not_compared(artifact, quantized, data)}"]
    warning = fidelity.warning(quantized.path.name)
    return [*lines, f"against {fidelity.base}: {fidelity}", *([f"warning: {warning}"] if warning else [])]


def _why_not_compared(artifact: Path, quantized: Artifact, data: str | None) -> str:
    if data is None:
        return "no images were given; add --data"
    command = f"glyphpress compare {argument(artifact)} {argument(quantized.path)} --data {argument(data)}"
    return f"{data} has no train split, which the comparison uses; `{command}` compares them on its test split"


@click.command()
@click.argument("file", type=values.FILE, shell_complete=complete.JSON_FILE)
@click.option("-o", "--output", type=values.OUTPUT_FILE, help="A picture (.svg): histogram and range of every tensor.")
@options.run_options(force=True)
@options.json_option
def ranges(file: Path, output: Path | None, context: RunContext, as_json: bool) -> None:
    """Show and draw the ranges that `quantize --save-ranges` saved.

    \b
    Example:
      glyphpress ranges cnn.ranges.json -o ranges.svg
    """
    from toolchain.report.pictures import ranges_picture, ranges_text

    saved = ranges_picture(file, output, force=context.force)
    if as_json:
        console.emit("ranges", saved.model_dump(mode="json", exclude={"schema_"}))
    else:
        console.show(ranges_text(saved))
