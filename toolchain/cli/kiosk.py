"""`glyphpress kiosk`: serves the page on which a person writes and the models of a press read."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import rich_click as click

from toolchain.cli import complete, console, options, values

LOOPBACK = "127.0.0.1"


@click.command()
@click.argument("run_dir", metavar="RUN_DIR", type=values.FOLDER)
@click.option("--port", type=values.Whole(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    shell_complete=complete.HOST,
    help="Address to serve on; others than this machine's own let the network see the page.",
)
@click.option(
    "--save",
    type=values.OUTPUT_FOLDER,
    help="Keep characters that are marked as read wrong in this folder, which --data takes.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@options.json_option
def kiosk(*, run_dir: Path, port: int, host: str, save: Path | None, open_page: bool, as_json: bool) -> None:
    """Serve a page on which anybody writes a word, and sees what the float and the pressed model read.

    The models run in the browser: the very files that ship. Characters that are read wrong can be marked, and kept as a
    test set. Ctrl-C ends it. --json prints the address and the files when the page can be opened.

    \b
    Example:
      glyphpress kiosk out/ --open
      glyphpress kiosk out/ --save wrong/
    """
    from toolchain.commands import kiosk as command

    with command.kiosk(run_dir, host=host, port=port, save=save) as server:
        address = f"http://{host}:{server.server_port}/"
        if not _is_loopback(host):
            writes = ", fill the folder of --save" if save else ""
            where = " at this machine's address in their network" if host == "0.0.0.0" else ""
            console.warn(f"warning: other machines can open this page{where}{writes} and download the models")
        models = command.kiosk_models(run_dir)
        for note in models.notes:
            console.warn(f"warning: {note}")
        if as_json:
            facts = {"url": address, "files": models.facts()}
            console.emit("kiosk", facts | {"save": str(save) if save else None})
        else:
            console.tell(f"kiosk  {address}  (Ctrl-C ends it)")
        if open_page and not _opened(address):
            console.say("there is no web browser here; open the address above in one")
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def _opened(address: str) -> bool:
    """Open the page in the user's browser; return whether there is one."""
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False


def _is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
