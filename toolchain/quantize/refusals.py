"""What a format or its runtime refuses to quantize, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from targets.errors import RunFailed
from toolchain.core.errors import StageError
from toolchain.formats import catalog
from toolchain.quantize.step import Quantize

if TYPE_CHECKING:
    from pathlib import Path

    from targets.artifact import Artifact


def refusal(step: Quantize, kind: str) -> str | None:
    """Return why a file of format `kind` cannot be quantized by the step, or None where it can."""
    row, file_format = step.row, catalog.get(kind)
    if kind not in row.formats:
        return row.refused.get(kind, f"this scheme makes {', '.join(row.formats)} only")
    if kind in row.channels_only and not step.per_channel:
        return row.channels_only[kind]
    if step.activations and step.activations not in file_format.activations:
        return f"{file_format.runtime}'s kernels take {file_format.activations[0]} activations; leave `activations` out"
    if step.integer_io and step.activations == "int8" and not file_format.converts_pixels:
        kernels = f"{file_format.runtime}'s kernels"
        return f"pixels are uint8, and {kernels} take and give the same type; leave `activations` out"
    if step.reduce_range and not file_format.saturates:
        return f"{file_format.runtime}'s kernels do not saturate; leave `reduce_range` out"
    return None


def other_schemes(step: Quantize) -> str:
    """Return the advice which schemes to take where this one fails."""
    if step.row.activations == "int16":
        return "take --scheme static-int8, or one that computes in float between layers: weight-int8, dynamic-int8"
    if step.calibrated:
        return "take --scheme weight-int8, dynamic-int8 or float16, which compute in float between layers"
    return "take --scheme float16, which leaves all operators as they are"


@contextmanager
def refusals_explained(artifact: Artifact, step: Quantize, made: Path) -> Iterator[None]:
    """Raise StageError about a layer of the float `artifact` where its runtime refuses the file `made` of it.

    Where the runtime's message cannot be traced to a layer, RunFailed passes as it is.
    """
    file_format = catalog.get(artifact.format)
    try:
        file_format.check_runs(made)
        yield
    except RunFailed as error:
        operator = file_format.refused_operator(made, str(error))
        if operator is None:
            raise
        raise StageError(
            f"{artifact.path.name}: {file_format.runtime} cannot run what {step.scheme} makes of it{operator}; "
            f"{other_schemes(step)}"
        ) from error
