"""Inside GitHub Actions: annotations on the run, and the summary on its page.

Workflow commands (`::error title=...::message`) are read from stderr as from stdout, so that `--json` stays one object.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from toolchain.core.visible import visible
from toolchain.report.judgement import Judgement, Standing
from toolchain.stats.decision import Outcome

_COMMANDS: dict[Standing, str] = {"stopped": "error", "warned": "warning", "beaten": "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def in_actions(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def commands(judgement: Judgement) -> Iterator[str]:
    """Yield a workflow command for each verdict that is no PASS, and a last one that says what ships.

    What keeps a candidate from shipping is an error, INCONCLUSIVE too, since the job is red for it.
    """
    for judged, verdict, standing in judgement.verdicts():
        if standing != "passed":
            title = f"glyphpress gate {verdict.outcome}: {verdict.limit}"
            yield _command(_COMMANDS[standing], f"{judged.file.name}: {verdict.reason}", title, judged.path)
    if judgement.outcome is Outcome.PASS:
        against = f"{judgement.winner} may ship in place of {judgement.baseline.name}"
        yield _command("notice", against, "glyphpress gate PASS")


def annotate(judgement: Judgement, summary: str, environment: Mapping[str, str] = os.environ) -> None:
    """Print the annotations to stderr and append `summary` to the step's page; nothing outside GitHub Actions."""
    if not in_actions(environment):
        return
    for line in commands(judgement):
        click.echo(line, err=True)
    if page := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(summary)


def _command(name: str, message: str, title: str, path: str = "") -> str:
    place = f"file={visible(path).translate(_PROPERTY)},line=1," if path else ""
    return f"::{name} {place}title={visible(title).translate(_PROPERTY)}::{visible(message).translate(_DATA)}"
