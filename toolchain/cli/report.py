"""`glyphpress report`: prints the report of an earlier press, shows its page, or prints the timings of earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.report.report import Report


@click.command()
@click.argument(
    "paths",
    metavar="DIR...|TIMINGS.npz...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=complete.TIMINGS,
)
@click.option("--open", "opened", is_flag=True, help="Also show the page of the press, report.html, in a web browser.")
@click.option(
    "-o",
    "--output",
    type=values.OUTPUT_FILE,
    help="Write the page of the press without its pictures, or of the comparison, as .html.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the whole report as Markdown.")
@options.run_options(force=True)
@options.json_option
def report(
    *,
    paths: tuple[Path, ...],
    opened: bool,
    output: Path | None,
    as_markdown: bool,
    context: RunContext,
    as_json: bool,
) -> None:
    """Print the report of a press or profile, or the timings that `profile -o` or a press stored.

    Several folders, or several timing files, are runs over time: each is compared with the first one, file by file, and
    what may not be compared is said (other images, another machine, another model).

    \b
    Example:
      glyphpress report out/ --open
      glyphpress report monday/ tuesday/ -o compare.html
      glyphpress report monday.npz tuesday.npz
    """
    from toolchain.core.errors import UsageProblem

    timings = [path for path in paths if path.suffix == ".npz"]
    if timings and len(timings) < len(paths):
        raise UsageProblem("give folders of presses, or only files of timings (.npz)")
    if timings:
        if opened or output:
            raise UsageProblem("timings have no page; give the folder of a press, or leave --open and --output out")
        _timings(paths, as_markdown=as_markdown, as_json=as_json)
        return
    if output:
        from toolchain.core.files import refuse_unfit

        refuse_unfit(output, ".html", force=context.force)
    page = output or (_page(paths) if opened else None)
    if profiles := [path for path in paths if _is_profile(path)]:
        _profiles(paths, profiles, output, as_markdown=as_markdown, as_json=as_json)
    elif len(paths) == 1:
        _press(paths[0], output, as_markdown=as_markdown, as_json=as_json, force=context.force)
    else:
        _runs(paths, output, as_markdown=as_markdown, as_json=as_json, force=context.force)
    if opened and page:
        from toolchain.report.page.viewer import open_page

        open_page(page)


def _page(paths: Sequence[Path]) -> Path:
    """Return the page that --open shows where none is written; raises before anything is printed if there is none."""
    from toolchain.core.errors import UsageProblem
    from toolchain.report.page.viewer import page_of

    if len(paths) > 1:
        raise UsageProblem("--open shows a comparison of runs from a file; name it with -o compare.html")
    return page_of(paths[0])


def _runs(paths: Sequence[Path], output: Path | None, *, as_markdown: bool, as_json: bool, force: bool) -> None:
    from toolchain.core.files import write_whole
    from toolchain.report.page.runs_page import runs_html
    from toolchain.report.runs import load_runs, runs_dict, runs_table

    runs = load_runs(paths)
    if output:
        write_whole(output, runs_html(runs), force=force)
    if as_json:
        console.emit("report-runs", runs_dict(runs))
    elif as_markdown:
        click.echo(runs_table(runs).markdown())
    else:
        console.show_columns(runs_table(runs), whole=True)


def _is_profile(folder: Path) -> bool:
    from targets.host.text import result_kind
    from toolchain.core.files import MARK

    return result_kind(folder / MARK) == "profile"


def _profiles(
    paths: Sequence[Path], profiles: Sequence[Path], output: Path | None, *, as_markdown: bool, as_json: bool
) -> None:
    """Print the timings in folders of profiles; raises UsageProblem where presses are among them or a page is asked."""
    from toolchain.core.errors import UsageProblem

    if len(profiles) < len(paths):
        raise UsageProblem(f"{profiles[0]} is the folder of a profile; give folders of presses, or only of profiles")
    if output:
        raise UsageProblem(
            f"{profiles[0]} is the folder of a profile, whose page is its report.html; leave --output out"
        )
    _timings([folder / "timings.npz" for folder in profiles], as_markdown=as_markdown, as_json=as_json)


def _press(folder: Path, output: Path | None, *, as_markdown: bool, as_json: bool, force: bool) -> None:
    from toolchain.core.json_codec import to_json
    from toolchain.report.press_report import report_markdown, show_report
    from toolchain.report.report import Report, changed_files

    stored = Report.load(folder)
    for line in changed_files(stored, folder if folder.is_dir() else folder.parent):
        console.warn(f"warning: {line}")
    if output:
        _write_page(stored, folder, output, force=force)
    if as_json:
        console.emit("report", to_json(stored))
    elif as_markdown:
        click.echo(report_markdown(stored), nl=False)
    else:
        show_report(stored, console.out())


def _write_page(stored: Report, folder: Path, output: Path, *, force: bool) -> None:
    from toolchain.core.files import write_whole
    from toolchain.report.page.links import seen_from
    from toolchain.report.page.press_page import press_html
    from toolchain.report.report import changed_files

    files = folder if folder.is_dir() else folder.parent
    page = press_html(stored, folder=seen_from(output, files), warnings=changed_files(stored, files))
    write_whole(output, page, force=force)


def _timings(paths: Sequence[Path], *, as_markdown: bool, as_json: bool) -> None:
    from toolchain.evaluation.timings import load_timings
    from toolchain.report.timings import history_dict, history_table

    runs = [load_timings(path) for path in paths]
    if as_json:
        console.emit("report-timings", history_dict(runs))
    elif as_markdown:
        click.echo(history_table(runs).markdown())
    else:
        console.show_columns(history_table(runs), whole=True)
