"""`glyphpress kiosk`: serves the page on which a person writes and the models of a press read."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path

import rich_click as click

from toolchain.cli import console, values

LOOPBACK = "127.0.0.1"


@click.command()
@click.argument("run_dir", metavar="RUN_DIR", type=values.FOLDER)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to serve on; others than this machine's own "
              "let the network see the page.")  # fmt: skip
@click.option(
    "--save",
    type=values.OUTPUT_FOLDER,
    help="Keep characters that are marked as read wrong in this folder, which --data takes.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
def kiosk(run_dir: Path, port: int, host: str, save: Path | None, open_page: bool) -> None:
    """Serve a page on which anybody writes a character, and sees what the float and the pressed model read.

    The models run in the browser: the very files that ship. Ctrl-C ends it.

    \b
    Example:
      glyphpress kiosk out/ --open
      glyphpress kiosk out/ --save wrong/
    """
    from toolchain.commands import kiosk as command

    with command.kiosk(run_dir, host=host, port=port, save=save) as server:
        if host not in {LOOPBACK, "localhost"}:
            writes = " and fill the folder of --save" if save else ""
            console.say(f"warning: other machines can open this page, download the models{writes}")
        address = f"http://{host}:{server.server_port}/"
        console.tell(f"kiosk  {address}  (Ctrl-C ends it)")
        if open_page:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
