"""The options of a training that starts from a checkpoint: the file, its classes, and what stays frozen."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from toolchain.cli import checkpoint_options, complete, options, values
from toolchain.cli.help_page import PanelOption
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from calibration.dataset import Dataset
    from targets.preprocess import Preprocess
    from toolchain.core.context import RunContext
    from toolchain.training.transfer import Freeze, Start

_option = functools.partial(click.option, cls=PanelOption, panel="Transfer learning")


@dataclass(frozen=True)
class ChosenStart:
    """The checkpoint that a command line names, and its options."""

    checkpoint: Path
    classes: tuple[str, ...]
    weights: str | None
    trust_pickle: bool
    freeze: Freeze | None

    def of(self, data: Dataset, model: str | None, preprocess: Preprocess | None, context: RunContext) -> Start:
        """Load the checkpoint, and make its head one for the classes of `data`; raises as `start_from` does."""
        from toolchain.checkpoint.load import CheckpointRequest
        from toolchain.training.transfer import start_from

        request = CheckpointRequest(
            model, self.trust_pickle, classes=self.classes, preprocess=preprocess, weights=self.weights
        )
        return start_from(str(self.checkpoint), data, request=request, freeze=self.freeze, seed=context.seed)


def start_options(command: Command) -> Command:
    """Add `--from` and what belongs to it; the command gets `starting: ChosenStart | None`, None without `--from`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        return command(*args, starting=_chosen(**given), **kwargs)

    return checkpoint_options.weights_options(options.with_options(cast(Command, wrapped), _OPTIONS))


def _chosen(
    *,
    start_file: Path | None,
    from_classes: tuple[str, ...] | None,
    freeze: bool,
    freeze_until: str | None,
    freeze_epochs: int | None,
    weights: str | None,
    trust_pickle: bool,
) -> ChosenStart | None:
    if start_file is None:
        belonging = {
            "--from-classes": from_classes,
            "--freeze": freeze,
            "--freeze-until": freeze_until,
            "--freeze-epochs": freeze_epochs,
            "--weights": weights,
            "--trust-pickle": trust_pickle,
        }
        for name in (name for name, value in belonging.items() if value):
            raise click.UsageError(f"{name} belongs to --from, the checkpoint to start from; give that too")
        return None
    if freeze and freeze_until:
        raise click.UsageError("--freeze freezes all but the head, --freeze-until fewer layers; give one of them")
    if freeze_epochs and not (freeze or freeze_until):
        raise click.UsageError("--freeze-epochs says for how long; give --freeze or --freeze-until LAYER too")
    from toolchain.training.transfer import Freeze

    kept = Freeze(freeze_until, freeze_epochs) if freeze or freeze_until else None
    return ChosenStart(start_file, from_classes or (), weights, trust_pickle, kept)


_NAMES = ("start_file", "from_classes", "freeze", "freeze_until", "freeze_epochs", "weights", "trust_pickle")
_OPTIONS = (
    _option(
        "--from",
        "start_file",
        type=values.FILE,
        shell_complete=complete.CHECKPOINT,
        metavar="CHECKPOINT",
        help="Start from the weights of this file (.pt or .safetensors), or of a model that ships. For other classes "
        "it gets a new head, whose columns of classes of the same name start from the old ones.",
    ),
    _option(
        "--from-classes",
        type=values.CLASSES,
        metavar="CLASSES",
        shell_complete=complete.CLASSES,
        help="Classes that the file reads, where it does not say. Default: those of --data.",
    ),
    _option(
        "--freeze",
        is_flag=True,
        help="Train only the head: other weights and batch norm statistics stay as they are.",
    ),
    _option(
        "--freeze-until",
        metavar="LAYER",
        shell_complete=complete.FROZEN_LAYER,
        help="Freeze this layer and those before it, such as features.norm3 (`glyphpress inspect` lists them).",
    ),
    _option(
        "--freeze-epochs",
        type=values.Whole(1, 100_000),
        metavar="N",
        help="Freeze for the first N epochs. Default: all.",
    ),
)
