"""No output of a command takes the place of a file that the same command reads: not even `--force` allows that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import rich_click as click

from toolchain.cli import values


def refuse_replaced_inputs(ctx: click.Context) -> None:
    """Raise UsageProblem where an output that was named is a file that was named as an input, or a sidecar of one.

    Everything on the command line that is an existing file and no output counts as an input: models, evaluations,
    evidence, policies, recipes, settings, images. A folder that is replaced as a whole may hold none of them.
    """
    from toolchain.core.errors import UsageProblem

    named = [(param, path) for param in ctx.command.params for path in _paths(ctx.params.get(str(param.name)))]
    inputs = [
        file for param, path in named if not isinstance(param.type, values.Output) for file in _with_sidecar(path)
    ]
    for param, output in named:
        if not isinstance(param.type, values.Output):
            continue
        for file in filter(_is_file, inputs):
            if param.type.replaced and output.is_dir() and file.resolve().is_relative_to(output.resolve()):
                raise UsageProblem(
                    f"{output} holds {file}, which this command reads, so that not even --force replaces it; give "
                    "another folder"
                )
            if any(_same(written, file) for written in _with_sidecar(output)):
                raise UsageProblem(
                    f"an output would replace {file}, which this command reads, so that not even --force allows it; "
                    "give another name"
                )


def _paths(value: object) -> Iterator[Path]:
    """Yield what may be a path in the value of a parameter, which may be a tuple of them."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _paths(part)
    elif isinstance(value, Path) or (isinstance(value, str) and value):
        yield Path(value)


def _is_file(path: Path) -> bool:
    # pathlib raises for a text that is too long for a name, such as a recipe.
    return os.path.isfile(path)  # noqa: PTH113


def _same(output: Path, file: Path) -> bool:
    return _is_file(output) and output.samefile(file)


def _with_sidecar(path: Path) -> tuple[Path, ...]:
    """Return a path, and of a model file its sidecar, which is read and written with it."""
    from toolchain.formats import catalog

    return (path, path.with_name(f"{path.name}.json")) if catalog.of(path) else (path,)
