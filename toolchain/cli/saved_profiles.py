"""`glyphpress profile list`, `compare` and `history`: what `profile --save` kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values

if TYPE_CHECKING:
    from toolchain.core.context import RunContext
    from toolchain.report.tables import Columns

FOLDER = Path("profiles")
"""Where runs are saved and looked for if no folder is named."""
_RUN = click.Path(path_type=Path)


def _show(table: Columns) -> None:
    console.show(table.text(width=console.width() or console.LOG_WIDTH, colour=not console.plain()))


def refuse_taken(files: Mapping[str, Path | None], *, force: bool) -> None:
    """Raise UsageProblem where two files to write, by their options, have one name, or one exists without `force`."""
    from toolchain.core.errors import UsageProblem
    from toolchain.core.files import refuse_existing

    named = [path for path in files.values() if path]
    if len({path.resolve() for path in named}) < len(named):
        *others, last = files
        raise UsageProblem(f"{', '.join(others)} and {last} name one file; give each a file of its own")
    for path in named:
        refuse_existing(path, force=force)


@click.command("list")
@click.argument("folder", metavar="[DIR]", default=FOLDER, type=values.FOLDER)
@click.option("--markdown", type=values.OUTPUT_FILE, help="Write the table to this file as Markdown.")
@click.option("--csv", type=values.OUTPUT_FILE, help="Write a line for each file to this file, in nanoseconds.")
@options.run_options(force=True)
@options.json_option
def list_(*, folder: Path, markdown: Path | None, csv: Path | None, context: RunContext, as_json: bool) -> None:
    """List the runs that `profile --save` kept in a folder, by default ./profiles.

    A JSON file that is no saved run is named on stderr, and the exit code is 3.

    \b
    Example:
      glyphpress profile list
      glyphpress profile list bench/ --csv runs.csv
    """
    from targets.host.text import argument
    from toolchain.core.errors import EvidenceError
    from toolchain.core.files import write_whole
    from toolchain.profiling.saved import list_runs
    from toolchain.report.saved_profiles import runs_csv, runs_dict, runs_list

    refuse_taken({"--markdown": markdown, "--csv": csv}, force=context.force)
    runs, unreadable = list_runs(folder)
    none = f"{folder} holds no saved run; `glyphpress profile FILE --save {argument(folder)}` makes one"
    if as_json:
        console.emit("profile-list", runs_dict(runs, unreadable))
    elif runs:
        _show(runs_list(runs))
    else:
        console.say(none)
    has_rows = any(run.rows for run in runs)
    if markdown and has_rows:
        write_whole(markdown, runs_list(runs).markdown() + "\n", force=context.force)
    if csv and has_rows:
        write_whole(csv, runs_csv(runs), force=context.force)
    for line in unreadable[1:]:
        console.warn(line)
    if unreadable:
        raise EvidenceError(unreadable[0])
    if (markdown or csv) and not has_rows:
        raise EvidenceError(none)


@click.command()
@click.argument("base", type=_RUN, shell_complete=complete.SAVED_RUN)
@click.argument("run", type=_RUN, shell_complete=complete.SAVED_RUN)
@click.option("--anyway", is_flag=True, help="Compare runs of unlike machines too.")
@click.option(
    "--fail-on-slower",
    is_flag=True,
    help="Exit 1 if a file is shown to be more than 2 % slower, 5 if that cannot be said.",
)
@click.option("--markdown", type=values.OUTPUT_FILE, help="Write the table and its remarks to this file as Markdown.")
@click.option("--csv", type=values.OUTPUT_FILE, help="Write every figure to this file, in nanoseconds.")
@options.run_options(force=True)
@options.json_option
def compare(
    *,
    base: Path,
    run: Path,
    anyway: bool,
    fail_on_slower: bool,
    markdown: Path | None,
    csv: Path | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Compare two saved runs: how many times as long each file takes in RUN as in BASE.

    Each is a file that `profile --save` wrote, or a folder of them, whose newest run is taken. The interval is as wide
    as other runs in their folders show: give it repeats of unchanged files, since two runs are never alike.

    \b
    Example:
      glyphpress profile compare profiles/2026-11-28T09-00-00.000Z.json profiles
      glyphpress profile compare main/ branch/ --fail-on-slower
    """
    from toolchain.core.files import write_whole
    from toolchain.profiling.run_comparison import compare_runs, require_not_slower
    from toolchain.profiling.saved import find, neighbours
    from toolchain.report.saved_profiles import comparison_csv, comparison_table

    refuse_taken({"--markdown": markdown, "--csv": csv}, force=context.force)
    before, after = find(base), find(run)
    compared = compare_runs(before, after, neighbours(before, after), anyway=anyway)
    if as_json:
        console.emit("profile-compare", compared.to_dict())
    else:
        _show(comparison_table(compared))
    if markdown:
        write_whole(markdown, comparison_table(compared).markdown() + "\n", force=context.force)
    if csv:
        write_whole(csv, comparison_csv(compared), force=context.force)
    if fail_on_slower:
        require_not_slower(compared)


@click.command()
@click.argument("folder", metavar="[DIR]", default=FOLDER, type=values.FOLDER)
@click.option(
    "--since",
    metavar="COMMIT",
    shell_complete=complete.SAVED_COMMIT,
    help="Leave out the runs before this commit: a change that was accepted.",
)
@click.option(
    "--fail-on-slower",
    is_flag=True,
    help="Exit 1 if a file of the newest run is slower since a commit, 5 if that cannot be said.",
)
@click.option("--markdown", type=values.OUTPUT_FILE, help="Write the findings and the chart to this file as Markdown.")
@click.option("--csv", type=values.OUTPUT_FILE, help="Write a line for each run to this file, in nanoseconds.")
@options.run_options(seed=True, force=True)
@options.json_option
def history(
    *,
    folder: Path,
    since: str | None,
    fail_on_slower: bool,
    markdown: Path | None,
    csv: Path | None,
    context: RunContext,
    as_json: bool,
) -> None:
    """Say since which commit a file is slower, from the runs that `profile --save` kept in a folder.

    Runs are in order of their commits where git knew them all, else of time; machines and settings are kept apart. A
    change takes four runs on either side. A slowdown is reported until it is undone, or accepted by `--since`.

    \b
    Example:
      glyphpress profile history
      glyphpress profile history bench/ --fail-on-slower
    """
    from toolchain.core.errors import EvidenceError
    from toolchain.core.files import write_whole
    from toolchain.profiling.latency_history import latency_history
    from toolchain.profiling.saved import runs_in
    from toolchain.report.saved_profiles import history_csv, history_markdown, history_text

    refuse_taken({"--markdown": markdown, "--csv": csv}, force=context.force)
    found = latency_history(runs_in(folder), since=since, seed=context.seed)
    if not found.series:
        raise EvidenceError(f"{folder}: no run in it has latencies; profile a file on a device")
    if as_json:
        console.emit("profile-history", found.to_dict())
    else:
        console.write(history_text(found))
    if markdown:
        write_whole(markdown, history_markdown(found), force=context.force)
    if csv:
        write_whole(csv, history_csv(found), force=context.force)
    if fail_on_slower:
        found.require_not_slower()


COMMANDS = (list_, compare, history)
