"""The options of a gate: what is judged, by which limits, and which files it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from toolchain.cli import complete, options
from toolchain.cli.options import Command

if TYPE_CHECKING:
    from toolchain.report.outputs import Outputs

_LIMITS = ("drop", "size", "p50", "p95")
_FILES = ("junit", "sarif", "markdown", "verdict")
_OPTIONS = (
    click.option("--baseline", type=options.FILE, help="Float artifact, its saved evaluation, or a stored baseline."),
    click.option(
        "--candidate",
        "candidates",
        multiple=True,
        type=options.FILE,
        help="Artifact to judge, or its saved evaluation; of several the best ships.",
    ),
    options.optional_data_option,
    options.classes_option,
    click.option(
        "--train-data",
        metavar="DATA",
        shell_complete=complete.DATA,
        help="What the candidate was trained and calibrated on, for [leaks]; by default the train split of --data.",
    ),
    click.option(
        "--from",
        "stored",
        multiple=True,
        type=options.FILE,
        help="Judge evidence that --evidence stored, without running anything; once for each candidate.",
    ),
    options.policy_option,
    click.option("--max-drop", "drop", type=options.POINTS, help="Margin of accuracy in place of the policy's."),
    click.option("--max-size", "size", type=options.SIZE, help="Largest file, in place of the policy's."),
    click.option(
        "--max-p50", "p50", type=options.DURATION, help="Largest median latency at batch 1, in place of the policy's."
    ),
    click.option(
        "--max-p95", "p95", type=options.DURATION, help="Largest P95 latency at batch 1, in place of the policy's."
    ),
    options.target_option,
    options.threads_option(1),
    click.option("--junit", type=options.FILE, help="Write JUnit XML, a test case a limit."),
    click.option("--sarif", type=options.FILE, help="Write SARIF, a result a limit that did not pass."),
    click.option("--markdown", type=options.FILE, help="Write a summary for a pull request, and its pictures beside."),
    click.option("--verdict", type=options.FILE, help="Write all that was concluded as JSON (`gate schema verdict`)."),
    click.option(
        "--evidence", multiple=True, type=options.FILE, help="Store the evidence for --from; once for each candidate."
    ),
    options.force_option,
    options.json_option,
)


def gate_options(command: Command) -> Command:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_outputs(words: dict[str, Any]) -> tuple[Outputs, dict[str, Any], dict[str, float | None]]:
    """Return the files that are asked for, the words of `GateRequest`, and the limits."""
    from toolchain.report.outputs import Outputs

    outputs = Outputs(**{name: words.pop(name) for name in _FILES}, force=words.pop("force"))
    limits = {name: words.pop(name) for name in _LIMITS}
    return outputs, words, limits
