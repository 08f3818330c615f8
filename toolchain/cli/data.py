"""`glyphpress data`: list the data sets, check their images, and download EMNIST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, values
from toolchain.cli.groups import NearestGroup
from toolchain.cli.options import classes_option, json_option, refuse_missing_root, run_options
from toolchain.core.errors import StageError
from toolchain.core.quantities import counted

if TYPE_CHECKING:
    from toolchain.core.context import RunContext


def root_option(*, made: bool) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Add `--data-root` to a command that has no `--data`; made: whether the folder may be missing, and is made."""
    return click.option(
        "--data-root",
        type=values.FOLDER,
        envvar="GLYPHPRESS_DATA",
        callback=None if made else refuse_missing_root,
        help="Folder of EMNIST's files, searched first and downloaded to. Default: the user cache.",
    )


@click.group(cls=NearestGroup)
def data() -> None:
    """List, check and fetch the images.

    \b
    Example:
      glyphpress data check builtin:digits
    """


@data.command("list")
@root_option(made=False)
@run_options()
@json_option
def list_(context: RunContext, as_json: bool) -> None:
    """List the data sets, their official sizes, and where they are on this machine.

    \b
    Example:
      glyphpress data list
    """

    from calibration.load import catalog

    entries = catalog(context.data_root)
    if as_json:
        console.emit("data-list", {"data": [entry.to_dict() for entry in entries]})
        return
    for entry in entries:
        console.tell(entry.line())


@data.command()
@click.argument("data", metavar="DATA", shell_complete=complete.DATA)
@classes_option
@root_option(made=False)
@click.option("--strict", is_flag=True, help="Exit 3 if a check finds a problem.")
@run_options(seed=True)
@json_option
def check(data: str, context: RunContext, strict: bool, as_json: bool) -> None:
    """Check counts, balance, copies between train and test, and orientation.

    \b
    Example:
      glyphpress data check builtin:digits
    """
    from calibration.check import check as check_data

    report = check_data(data, context.data_root, context.seed, context.progress)
    if as_json:
        console.emit("data-check", report.to_dict())
    else:
        for line in report.lines():
            console.tell(line)
    if strict and report.findings:
        raise StageError(f"{data}: {counted(len(report.findings), 'finding')}; leave out --strict to accept them")


@data.command()
@root_option(made=True)
@click.option("--url", help="A mirror of the archive; its MD5 must be NIST's.")
@run_options(force=True)
@json_option
def fetch(url: str | None, context: RunContext, as_json: bool) -> None:
    """Download the official archive (562 MB), verify and unpack it; an interrupted download is resumed.

    \b
    Example:
      glyphpress data fetch --data-root ~/emnist
    """
    from calibration import download

    archive = replace(download.OFFICIAL, url=url) if url else download.OFFICIAL
    folder = download.fetch(context.data_root, archive, force=context.force, progress=context.progress)
    files = sorted(path.name for path in folder.iterdir())
    if as_json:
        console.emit("data-fetch", {"folder": str(folder), "files": files})
    else:
        console.tell(f"{len(files)} files in {folder}")
