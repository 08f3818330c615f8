"""`glyphpress deploy`: a model file as a service on a board."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from targets.ssh.deployment import Deployed
    from toolchain.core.context import RunContext

NAME, PORT = "reader", 8765


@click.command()
@click.argument("words", metavar="[FILE] BOARD", nargs=-1, required=True, shell_complete=complete.DEPLOYED)
@click.option(
    "--rollback",
    is_flag=True,
    help="Let the version before run again, or the later one; give BOARD alone.",
)
@click.option(
    "--name",
    default=NAME,
    show_default=True,
    help="Its name there; models of other names stay.",
)
@click.option(
    "--port",
    type=values.Whole(1, 65535),
    default=PORT,
    show_default=True,
    help="Port of the service, which the board itself alone can reach.",
)
@click.option("--no-service", is_flag=True, help="Put the files there and start nothing.")
@options.optional_data_option
@options.run_options(threads=0)
@options.json_option
def deploy(
    *,
    words: tuple[str, ...],
    rollback: bool,
    name: str,
    port: int,
    no_service: bool,
    data: str | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Put a model file on a board (ssh://[USER@]HOST[:PORT]) and let it read pictures there as a service.

    With it go its sidecar and a program without torch. Fifty pictures (of --data, else built-in digits) must be
    answered there as here before the board switches to it. The version before is kept, and no older one. Prepare the
    board once by `glyphpress targets setup`.

    \b
    Example:
      glyphpress deploy out/cnn-small.static-int8.tflite ssh://pi@kitchen
      glyphpress deploy ssh://pi@kitchen --rollback
    """
    from toolchain.commands.deploy import DIGITS, roll_back
    from toolchain.commands.deploy import deploy as put
    from toolchain.core.errors import UsageProblem

    if len(words) != (1 if rollback else 2):
        form = "--rollback takes the BOARD alone" if rollback else "give a FILE and a BOARD"
        raise UsageProblem(f"{form}, such as ssh://pi@kitchen")
    *files, board = words
    service = 0 if no_service else port
    if rollback:
        there = roll_back(board, name=name, port=service)
        facts = asdict(there)
        did = f"{board}: {name} is {there.file or 'the model before'} again (version {there.current})"
    else:
        done = put(Path(files[0]), board, name=name, port=service, data=data or DIGITS, context=context)
        there, facts = done.there, done.to_dict()
        did = f"{board}: {name} is {done.artifact.path.name} now; it answered {done.answers} pictures there as here"
    if as_json:
        console.emit("deploy", {"board": board, "name": name, "port": service} | facts)
        return
    console.tell(did)
    _tell(there, service)
    if there.previous:
        # A second --rollback goes forward again: the two versions that are kept change places.
        label = "the other version:   " if rollback else "go back:             "
        console.tell(f"{label} glyphpress deploy {board} --rollback{_given(name, port, no_service=no_service)}")
    for note in there.notes:
        console.warn(note)


def _given(name: str, port: int, *, no_service: bool) -> str:
    """Return the options that a rollback needs to reach the same service."""
    named = f" --name {name}" * (name != NAME)
    return f"{named} --no-service" if no_service else f"{named}{f' --port {port}' * (port != PORT)}"


def _tell(there: Deployed, port: int) -> None:
    """Say how pictures are read there."""
    console.tell(f"read pictures there:  {there.folder}/current/run PICTURE...")
    if there.service:
        console.tell(f"or by the service:    curl --data-binary @PICTURE http://127.0.0.1:{port}  ({there.service})")
