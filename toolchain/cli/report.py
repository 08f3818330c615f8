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
    from toolchain.report.press_report import report_markdown, show_report
    from toolchain.report.report import Report

    stored = Report.load(folder)
    if as_json:
        console.emit("report", to_json(stored))
    elif as_markdown:
        click.echo(report_markdown(stored), nl=False)
    else:
        show_report(stored, console.out())


def _timings(paths: tuple[Path, ...], *, as_markdown: bool, as_json: bool) -> None:
    from toolchain.evaluation.timings import load_timings
    from toolchain.report.timings import history_dict, history_table

    runs = [load_timings(path) for path in paths]
    if as_json:
        console.emit("report-timings", history_dict(runs))
    elif as_markdown:
        click.echo(history_table(runs).markdown())
    else:
        console.show(history_table(runs).text(width=console.width(), colour=not console.plain()))
