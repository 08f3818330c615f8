"""`glyphpress press`: the whole way, from a checkpoint to judged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli import complete, console, options
from toolchain.cli.checkpoint_options import checkpoint_options
from toolchain.cli.press_options import press_options


@click.command()
@click.argument("checkpoint", shell_complete=complete.CHECKPOINT)
@checkpoint_options
@options.data_option
@press_options
@click.option("--out", type=options.FOLDER, required=True, help="Folder of artifacts, sidecars and report.")
@options.seed_option
@options.threads_option(0)
@options.force_option
@options.json_option
def press(*, out: Path, force: bool, as_json: bool, **words: Any) -> None:
    """Prune, convert and quantize a model, then evaluate, time and judge every file that came out.

    Exit 0 when every file passed, 1 when one failed, 5 when one could not be decided, 3 when one could not be made; the
    others are there either way.

    \b
    Example:
      glyphpress press cnn-small --data emnist:balanced --out out/
    """
    from toolchain.cli.press_options import press_request
    from toolchain.commands.press import press as run
    from toolchain.report.advice import pressed_next
    from toolchain.report.table import show
    from toolchain.verdict.gate import raise_for

    with console.progress() as progress:
        report = run(press_request(**words), out, force=force, progress=progress)
    steps = pressed_next(report, out, options.data_words(words["data"], words["data_root"]))
    if as_json:
        console.emit("press", {"out": str(out), "report": report.to_dict(), "next_steps": steps})
    else:
        show(report, console.out())
        console.tell(f"report: {out / 'report.md'}")
        console.advise(steps)
    report.raise_unless_complete()
    if report.verdicts:
        raise_for(report.verdicts)
