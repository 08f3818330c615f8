"""`glyphpress distill`: a smaller model learns a checkpoint's answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from toolchain.cli import complete, options
from toolchain.cli.checkpoint_options import checkpoint_options
from toolchain.cli.prune import show

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


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
@click.option("--channels", type=options.Numbers(), help="Channels of its convolutions, such as 16,16,32,56,72.")
@click.option(
    "--dropout", type=options.Finite(0, 1, max_open=True), help="Dropout in its training. Default: the architecture's."
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    shell_complete=complete.CHECKPOINT,
    help="Learn from this checkpoint's answers instead of CHECKPOINT's, for example a larger model's.",
)
@click.option("--epochs", type=options.EPOCHS, default=24, show_default=True, help="Passes over the train split.")
@click.option(
    "--augment", type=options.Finite(0, 3), default=1.0, show_default=True, help="Strength of augmentation; 0 for none."
)
@click.option(
    "--temperature",
    type=options.Finite(1, 20),
    default=2.0,
    show_default=True,
    help="Temperature of the teacher's answers.",
)
@click.option("--soft", type=options.SHARE, default="90%", show_default=True, help="Weight of the teacher's answers.")
@click.option("-o", "--output", type=options.FILE, required=True, help="The .pt2 program to write.")
@options.run_options(seed=True, threads=0, force=True)
@options.json_option
def distill(
    *,
    checkpoint: str,
    request: Any,
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
    """
    from toolchain.commands.compress import compress_checkpoint
    from toolchain.recipe import Distill

    fields = {key: value for key, value in settings.items() if value is not None}
    if not 0 < fields["soft"] <= 1:
        raise click.BadParameter("give more than 0% and at most 100%", param_hint="--soft")
    made = compress_checkpoint(checkpoint, request, Distill(**fields), output, data=data, context=context)
    show(made, output, "distill", as_json=as_json)
