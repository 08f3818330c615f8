"""`glyphpress report`: prints the report of an earlier press, or the timings of earlier runs."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.argument("paths", metavar="DIR|TIMINGS.npz...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the whole report as Markdown.")
@options.json_option
def report(paths: tuple[Path, ...], as_markdown: bool, as_json: bool) -> None:
    """Print the report of a press, or the timings that `profile -o` or a press stored.

    Several timing files are runs over time: each is compared with the first one, model by model.

    \b
    Example:
      glyphpress report out/ --markdown
      glyphpress report monday.npz tuesday.npz
    """
    from toolchain.core.errors import UsageProblem

    timings = [path for path in paths if path.suffix == ".npz"]
    if timings and len(timings) == len(paths):
        _timings(paths, as_markdown=as_markdown, as_json=as_json)
    elif len(paths) == 1:
        _press(paths[0], as_markdown=as_markdown, as_json=as_json)
    else:
        raise UsageProblem("give one folder of a press, or only files of timings (.npz)")


def _press(folder: Path, *, as_markdown: bool, as_json: bool) -> None:
    from toolchain.core.json_codec import to_json
    from toolchain.report.markdown import markdown
    from toolchain.report.report import Report
    from toolchain.report.table import show

    stored = Report.load(folder)
    if as_json:
        console.emit("report", to_json(stored))
    elif as_markdown:
        click.echo(markdown(stored), nl=False)
    else:
        show(stored, console.out())


def _timings(paths: tuple[Path, ...], *, as_markdown: bool, as_json: bool) -> None:
    from toolchain.evaluation.timings_file import load_timings
    from toolchain.report.history import history_dict, history_markdown, history_text

    runs = [load_timings(path) for path in paths]
    if as_json:
        console.emit("report-timings", history_dict(runs))
    elif as_markdown:
        click.echo(history_markdown(runs))
    else:
        console.show(history_text(runs, width=console.width(), colour=not console.plain()))
