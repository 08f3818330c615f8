"""`glyphpress profile list`, `compare` and `history`: what `profile --save` kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console, options, values
from toolchain.cli.table_options import TableFiles, table_options

if TYPE_CHECKING:
    from toolchain.core.context import RunContext

FOLDER = Path("profiles")
"""Where runs are saved and looked for if no folder is named."""
_RUN = click.Path(path_type=Path)


@click.command("list")
@click.argument("folder", metavar="[DIR]", default=FOLDER, type=values.FOLDER)
@table_options(
    markdown="Write the table to this file as Markdown.",
    csv="Write a line for each file to this file, in nanoseconds.",
)
@options.run_options(force=True)
@options.json_option
def list_(*, folder: Path, tables: TableFiles, context: RunContext, as_json: bool) -> None:
    """List the runs that `profile --save` kept in a folder, by default ./profiles.

    A JSON file that is no saved run is named on stderr, and the exit code is 3.

    \b
    Example:
      glyphpress profile list
      glyphpress profile list bench/ --csv runs.csv
    """
    from targets.host.text import argument
    from toolchain.core.errors import EvidenceError
    from toolchain.profiling.saved import list_runs
    from toolchain.report.saved_profiles import runs_csv, runs_dict, runs_list

    tables.refuse_taken(force=context.force)
    runs, unreadable = list_runs(folder)
    none = f"{folder} holds no saved run; `glyphpress profile FILE --save {argument(folder)}` makes one"
    if as_json:
        console.emit("profile-list", runs_dict(runs, unreadable))
    elif runs:
        console.show_columns(runs_list(runs))
    else:
        console.say(none)
    has_rows = any(run.rows for run in runs)
    if has_rows:
        tables.write(
            markdown=lambda: runs_list(runs).markdown() + "\n", csv=lambda: runs_csv(runs), force=context.force
        )
    for line in unreadable[1:]:
        console.warn(line)
    if unreadable:
        raise EvidenceError(unreadable[0])
    if (tables.markdown or tables.csv) and not has_rows:
        raise EvidenceError(none)


@click.command()
@click.argument("base", type=_RUN, shell_complete=complete.SAVED_RUN)
@click.argument("run", type=_RUN, shell_complete=complete.SAVED_RUN)
@click.option("--anyway", is_flag=True, help="Compare runs of unlike machines too.")
@click.option(
    "--fail-on-slower",
    is_flag=True,
    help="Exit 1 if a file is shown to be more than 2 % slower, 5 if neither that nor the opposite is shown.",
)
@table_options(
    markdown="Write the table and its remarks to this file as Markdown.",
    csv="Write every figure to this file, in nanoseconds.",
)
@options.run_options(force=True)
@options.json_option
def compare(
    *,
    base: Path,
    run: Path,
    anyway: bool,
    fail_on_slower: bool,
    tables: TableFiles,
    context: RunContext,
    as_json: bool,
) -> None:
    """Compare two saved runs: how many times as long each file takes in RUN as in BASE.

    Each is a file that `profile --save` wrote, or a folder of them, whose newest run is taken. The interval is as wide
    as other runs in their folders show: give it repeats of unchanged files, since two runs are never alike. Repeats of
    another file, or in another folder, than those of the other run are averaged, so that more of them show more.

    \b
    Example:
      glyphpress profile compare profiles/2026-11-28T09-00-00.000Z.json profiles
      glyphpress profile compare main/ branch/ --fail-on-slower
    """
    from toolchain.profiling.run_comparison import compare_runs, require_not_slower
    from toolchain.profiling.saved import find, neighbours
    from toolchain.report.saved_profiles import comparison_csv, comparison_table

    tables.refuse_taken(force=context.force)
    before, after = find(base), find(run)
    compared = compare_runs(before, after, neighbours(before, after), anyway=anyway)
    if as_json:
        console.emit("profile-compare", compared.to_dict())
    else:
        console.show_columns(comparison_table(compared))
    tables.write(
        markdown=lambda: comparison_table(compared).markdown() + "\n",
        csv=lambda: comparison_csv(compared),
        force=context.force,
    )
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
@table_options(
    markdown="Write the findings and the chart to this file as Markdown.",
    csv="Write a line for each run to this file, in nanoseconds.",
)
@options.run_options(seed=True, force=True)
@options.json_option
def history(
    *,
    folder: Path,
    since: str | None,
    fail_on_slower: bool,
    tables: TableFiles,
    context: RunContext,
    as_json: bool,
) -> None:
    """Say since which commit a file is slower, from the runs that `profile --save` kept in a folder.

    Runs are in order of their commits where git knew them all, else of time; machines and settings are kept apart. A
    change shows after three to five runs; where it may have come with one of several commits, these are named. A
    slowdown is reported until it is undone, or accepted by `--since`.

    \b
    Example:
      glyphpress profile history
      glyphpress profile history bench/ --fail-on-slower
    """
    from toolchain.core.errors import EvidenceError
    from toolchain.profiling.latency_history import latency_history
    from toolchain.profiling.saved import runs_in
    from toolchain.report.saved_profiles import history_csv, history_markdown, history_text

    tables.refuse_taken(force=context.force)
    found = latency_history(runs_in(folder), since=since, seed=context.seed)
    if not found.series:
        raise EvidenceError(f"{folder}: no run in it has latencies; profile a file on a device")
    if as_json:
        console.emit("profile-history", found.to_dict())
    else:
        console.write(history_text(found))
    tables.write(markdown=lambda: history_markdown(found), csv=lambda: history_csv(found), force=context.force)
    if fail_on_slower:
        found.require_not_slower()


COMMANDS = (list_, compare, history)
