"""`glyphpress report`: the report of an earlier press, again."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.argument("place", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the whole report as Markdown.")
@options.json_option
def report(place: Path, as_markdown: bool, as_json: bool) -> None:
    """Print the report that a press left in its folder.

    \b
    Example:
      glyphpress report out/ --markdown
    """
    from toolchain.report.markdown import markdown
    from toolchain.report.report import Report
    from toolchain.report.table import show

    stored = Report.load(place)
    if as_json:
        console.emit("report", stored.to_dict())
    elif as_markdown:
        click.echo(markdown(stored), nl=False)
    else:
        show(stored, console.out())
