"""The files that a run of the gate writes for CI, and its annotations and summary inside GitHub Actions.

GitHub reads workflow commands (`::error title=...::message`) from stderr as from stdout, so `--json` stays one object.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import click

from targets.host.text import visible
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import refuse_existing, whole_file, write_whole
from toolchain.gate.evidence import Evidence
from toolchain.report.judgement import Judgement, Standing
from toolchain.stats.decision import Outcome


@dataclass(frozen=True)
class Outputs:
    """The files to write, None for those that were not asked for. force: overwrite files."""

    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None
    verdict: Path | None = None
    force: bool = False

    @property
    def gallery(self) -> Path | None:
        """The picture of the characters that flipped, beside the Markdown: `gate.flips.png` beside `gate.md`."""
        return None if self.markdown is None else self.markdown.with_name(f"{self.markdown.stem}.flips.png")

    def files(self) -> Iterator[Path]:
        """Yield every file that may be written."""
        yield from filter(None, (self.junit, self.sarif, self.markdown, self.gallery, self.verdict))

    def refuse_existing(self) -> None:
        """Raise UsageProblem if a file exists without `force`, cannot be written, or was named twice.

        Call it before any work.
        """
        named = set[Path]()
        for path in self.files():
            if path.absolute() in named:
                raise UsageProblem(f"{path} was named for two outputs; give each a file of its own")
            named.add(path.absolute())
            refuse_existing(path, force=self.force)


def write(judgement: Judgement, evidence: Sequence[Evidence], asked: Outputs) -> None:
    """Write the files that were asked for, each whole or not at all; inside GitHub Actions, annotate the run too.

    evidence: of each candidate, in the judgement's order. Raises EvidenceError when it is of other files, UsageProblem
    as `Outputs.refuse_existing` does.
    """
    if [one.pairs.candidate for one in evidence] != [judged.file for judged in judgement.candidates]:
        raise EvidenceError("the evidence is of other candidates than the judgement; give that of each, in its order")
    if not [*asked.files()] and not in_actions():
        return
    from toolchain.report.junit import junit
    from toolchain.report.pull_request import pull_request
    from toolchain.report.sarif import sarif

    asked.refuse_existing()
    if asked.verdict is not None:
        judgement.save(asked.verdict, force=asked.force)
    for path, document in ((asked.junit, junit), (asked.sarif, sarif)):
        if path is not None:
            write_whole(path, document(judgement), force=asked.force)
    if asked.markdown is not None:
        _markdown(judgement, evidence, asked)
    if in_actions():
        annotate(judgement, pull_request(judgement, evidence))


def _markdown(judgement: Judgement, evidence: Sequence[Evidence], asked: Outputs) -> None:
    """Write the pull request's Markdown, and before it the contact sheet it links where there are pictures."""
    assert asked.markdown is not None
    assert asked.gallery is not None
    from toolchain.report.gallery import contact_sheet, flips
    from toolchain.report.pull_request import pull_request

    sheets = [(_title(one), flips(one)) for one in evidence if one.flipped is not None and len(one.flipped.indices)]
    if sheets:
        with whole_file(asked.gallery, force=asked.force) as part:
            contact_sheet(sheets).save(part, "PNG", optimize=True)
    link = quote(asked.gallery.name) if sheets else None
    write_whole(asked.markdown, pull_request(judgement, evidence, picture=link), force=asked.force)


def _title(evidence: Evidence) -> str:
    pairs = evidence.pairs
    count = int(pairs.flipped.sum())
    return f"{pairs.candidate.name} against {pairs.baseline.name}: {count:,} answer{'s' * (count != 1)} changed"


_COMMANDS: dict[Standing, str] = {"stopped": "error", "warned": "warning", "beaten": "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def in_actions(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def commands(judgement: Judgement) -> Iterator[str]:
    """Yield a workflow command for each verdict that is not PASS, and a last one on the candidate that may ship.

    A verdict that keeps a candidate from shipping is an error, INCONCLUSIVE too, since it fails the job.
    """
    for judged, verdict, standing in judgement.verdicts():
        if standing != "passed":
            title = f"glyphpress gate {verdict.outcome}: {verdict.limit}"
            yield _command(_COMMANDS[standing], f"{judged.file.name}: {verdict.reason}", title, judged.path)
    if judgement.outcome is Outcome.PASS:
        against = f"{judgement.winner} may ship in place of {judgement.baseline.name}"
        yield _command("notice", against, "glyphpress gate PASS")


def annotate(judgement: Judgement, summary: str, environment: Mapping[str, str] = os.environ) -> None:
    """Print the annotations to stderr and append `summary` to the page of the step, if this is GitHub Actions."""
    if not in_actions(environment):
        return
    for line in commands(judgement):
        click.echo(line, err=True)
    if page := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(summary)


def _command(name: str, message: str, title: str, path: str = "") -> str:
    location = f"file={visible(path).translate(_PROPERTY)},line=1," if path else ""
    return f"::{name} {location}title={visible(title).translate(_PROPERTY)}::{visible(message).translate(_DATA)}"
