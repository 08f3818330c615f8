"""What a run of the gate writes: JUnit, SARIF, Markdown, a page, `verdict.json`, and annotations in GitHub Actions.

CI servers show a job as passed or failed by these files, so they must agree with the exit code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from targets.host.text import json_text, visible
from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive, UsageProblem, exit_code
from toolchain.core.files import refuse_existing, whole_file, write_whole
from toolchain.core.json_codec import to_json
from toolchain.core.quantities import counted
from toolchain.evaluation.compare import FileFacts
from toolchain.gate.gate import Evidence
from toolchain.gate.limit import Part, Verdict
from toolchain.gate.limits import REGISTRY, definition
from toolchain.report.judgement import Judged, Judgement, Standing, allowed_text, value_text
from toolchain.stats.decision import Outcome

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class Outputs:
    """The files to write, None for those that were not asked for.

    force: overwrite files. command: the command line, which the page repeats.
    """

    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None
    verdict: Path | None = None
    force: bool = False
    html: Path | None = None
    command: tuple[str, ...] = ()

    @property
    def gallery(self) -> Path | None:
        """The picture of the characters that flipped, beside the Markdown: `gate.flips.png` beside `gate.md`."""
        return None if self.markdown is None else self.markdown.with_name(f"{self.markdown.stem}.flips.png")

    def files(self) -> Iterator[Path]:
        """Yield every file that may be written."""
        yield from filter(None, (self.junit, self.sarif, self.markdown, self.gallery, self.verdict, self.html))

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


def write(judgement: Judgement, evidence: Sequence[Evidence], outputs: Outputs) -> None:
    """Write the files that were asked for, each whole or not at all; inside GitHub Actions, annotate the run too.

    evidence: of each candidate, in the judgement's order. Raises EvidenceError when it is of other files, UsageProblem
    as `Outputs.refuse_existing` does.
    """
    if [gathered.pairs.candidate for gathered in evidence] != [judged.file for judged in judgement.candidates]:
        raise EvidenceError("the evidence is of other candidates than the judgement; give that of each, in its order")
    if not [*outputs.files()] and not _in_actions():
        return
    from toolchain.report.pull_request import pull_request

    outputs.refuse_existing()
    if outputs.verdict is not None:
        judgement.save(outputs.verdict, force=outputs.force)
    for path, document in ((outputs.junit, junit), (outputs.sarif, sarif)):
        if path is not None:
            write_whole(path, document(judgement), force=outputs.force)
    if outputs.markdown is not None:
        _write_markdown(judgement, evidence, outputs)
    if outputs.html is not None:
        from toolchain.report.page.gate_page import gate_html

        page = gate_html(judgement, evidence, outputs.html, outputs.command)
        write_whole(outputs.html, page, force=outputs.force)
    if _in_actions():
        annotate(judgement, pull_request(judgement, evidence))


def _write_markdown(judgement: Judgement, evidence: Sequence[Evidence], outputs: Outputs) -> None:
    """Write the pull request's Markdown, and before it the contact sheet it links where there are pictures."""
    assert outputs.markdown is not None
    assert outputs.gallery is not None
    from toolchain.report.pull_request import contact_sheet, flips, pull_request

    sheets = [
        (_title(gathered), flips(gathered))
        for gathered in evidence
        if gathered.flipped is not None and len(gathered.flipped.indices)
    ]
    if sheets:
        with whole_file(outputs.gallery, force=outputs.force) as part:
            contact_sheet(sheets).save(part, "PNG", optimize=True)
    link = quote(outputs.gallery.name) if sheets else None
    write_whole(outputs.markdown, pull_request(judgement, evidence, picture=link), force=outputs.force)


def _title(evidence: Evidence) -> str:
    pairs = evidence.pairs
    count = int(pairs.flipped.sum())
    return f"{pairs.candidate.name} against {pairs.baseline.name}: {counted(count, 'answer')} changed"


_COMMANDS: dict[Standing, str] = {"stopped": "error", "warned": "warning", "beaten": "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def _in_actions(environment: Mapping[str, str] = os.environ) -> bool:
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
    """Print the annotations to stderr and append `summary` to the page of the step, if this is GitHub Actions.

    GitHub reads them (`::error title=...::message`) from stderr as from stdout, so the output of `--json` stays one
    object.
    """
    if not _in_actions(environment):
        return
    for line in commands(judgement):
        click.echo(line, err=True)
    if page := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(summary)


def _command(name: str, message: str, title: str, path: str = "") -> str:
    location = f"file={visible(path).translate(_PROPERTY)},line=1," if path else ""
    return f"::{name} {location}title={visible(title).translate(_PROPERTY)}::{visible(message).translate(_DATA)}"


def junit(judgement: Judgement) -> str:
    """Return the judgement as JUnit XML: a test suite for each candidate, in it a test case for each limit.

    - FAIL of a limit that fails is a `failure`: the candidate reads worse, is too large, too slow.
    - INCONCLUSIVE of such a limit is an `error`: the test reached no result. Jenkins, GitLab, Azure DevOps and CircleCI
      show errors beside failures, and a job with either has not passed.
    - A limit that only warns passes; what it measured is in `system-out`.
    - Where another candidate ships instead, a limit that did not pass is `skipped`, since the exit code is 0.

    The parts of a limit (classes, look-alikes, damages, runtimes) are listed in `system-out`. The schema is that of the
    xunit plugin of Jenkins (junit-10.xsd), which GitLab and others read too.
    """
    from xml.etree import ElementTree as ET

    root = ET.Element("testsuites", name="glyphpress gate")
    suites = [_suite(judgement, judged) for judged in judgement.candidates]
    root.extend(suites)
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(judgement: Judgement, judged: Judged) -> ET.Element:
    from xml.etree import ElementTree as ET

    suite = ET.Element("testsuite", name=visible(judged.file.name))
    properties = ET.SubElement(suite, "properties")
    for name, value in _facts(judgement, judged).items():
        ET.SubElement(properties, "property", name=name, value=visible(value))
    cases = [_case(verdict, standing) for owner, verdict, standing in judgement.verdicts() if owner is judged]
    suite.extend(cases)
    suite.set("tests", str(len(cases)))
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(kind) is not None for case in cases)))
    return suite


def _facts(judgement: Judgement, judged: Judged) -> dict[str, str]:
    return {
        "outcome": str(judged.outcome),
        "sha256": judged.file.sha256,
        "baseline": judgement.baseline.name,
        "baseline sha256": judgement.baseline.sha256,
        "input": judged.file.input,
        "baseline input": judgement.baseline.input,
        "images": f"{judged.comparison.images} of {judged.comparison.origin}",
        "competitors": str(judgement.competitors),
        "winner": judgement.winner or "none",
        "glyphpress": judgement.tools.get("glyphpress", "unknown"),
        "plug-ins": ", ".join(map(str, judgement.plugins)) or "none",
    }


def _case(verdict: Verdict, standing: Standing) -> ET.Element:
    from xml.etree import ElementTree as ET

    case = ET.Element("testcase", classname="glyphpress.gate", name=verdict.limit)
    if standing in ("stopped", "beaten"):
        failure_or_error = "failure" if verdict.outcome is Outcome.FAIL else "error"
        kind = "skipped" if standing == "beaten" else failure_or_error
        message = f"{verdict.outcome}: {verdict.reason}"
        ET.SubElement(case, kind, type=str(verdict.outcome), message=visible(message)).text = _figures(verdict)
    ET.SubElement(case, "system-out").text = "\n".join(_lines(verdict))
    return case


def _lines(verdict: Verdict) -> list[str]:
    warns = " (only warns)" if verdict.action == "warn" else ""
    head = f"{verdict.outcome}{warns} {verdict.limit}: {visible(verdict.reason)}"
    return [head, _figures(verdict), *(_part(verdict.limit, part) for part in verdict.parts)]


def _figures(verdict: Verdict) -> str:
    measured, bound = (value_text(verdict.limit, value) for value in (verdict.measured, verdict.bound))
    needed = f", {verdict.samples_needed:,} samples would decide" if verdict.samples_needed else ""
    return f"measured {measured}, bound {bound}, {allowed_text(verdict.limit, verdict.threshold)} allowed{needed}"


def _part(limit: str, part: Part) -> str:
    measured, bound = (value_text(limit, value) for value in (part.measured, part.bound))
    note = f", {visible(part.note)}" if part.note else ""
    return f"{part.outcome} '{visible(part.name)}': {measured}, bound {bound}, {counted(part.images, 'image')}{note}"


_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Standing, str] = {"stopped": "error", "warned": "warning", "beaten": "note"}
_CODES = {
    Outcome.PASS: 0,
    Outcome.FAIL: exit_code(GateFailed()),
    Outcome.INCONCLUSIVE: exit_code(GateInconclusive()),
}


def sarif(judgement: Judgement) -> str:
    """Return the judgement as SARIF 2.1.0 (OASIS): its rules are the limits, its results the verdicts other than PASS.

    GitHub fails a check only on results of level `error`. So every verdict that keeps a candidate from shipping is an
    `error`, INCONCLUSIVE too: a gate that could not decide has not passed. A limit that only warns gives a `warning`,
    and a candidate that another one beat gives a `note`. GitHub requires a line number for each result; a model file
    has no lines, so all results point to line 1.
    """
    judged_limits = {verdict.limit for _, verdict, _ in judgement.verdicts()}
    rules = [name for name in REGISTRY if name in judged_limits]
    results = [
        _result(judgement, judged, verdict, _LEVELS[standing], rules.index(verdict.limit))
        for judged, verdict, standing in judgement.verdicts()
        if standing != "passed"
    ]
    driver = {
        "name": "glyphpress",
        "version": judgement.tools.get("glyphpress", "unknown"),
        "rules": [_rule(name, judgement.policy.get(name, {"max": 0, "action": "fail"})) for name in rules],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "glyphpress-gate/"},
        "columnKind": "unicodeCodePoints",
        "artifacts": [
            *(_artifact(judged.file) | {"location": _location(judged.path)} for judged in judgement.candidates),
            # The baseline has no location: a stored baseline may stand in for a file that is not on this machine.
            _artifact(judgement.baseline),
        ],
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": _CODES[judgement.outcome],
                "exitCodeDescription": str(judgement.outcome),
            }
        ],
        "results": results,
        "properties": {
            "competitors": judgement.competitors,
            "winner": judgement.winner,
            "tools": judgement.tools,
            "plugins": [str(plugin) for plugin in judgement.plugins],
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json_text(log, indent=1) + "\n"


def _rule(name: str, table: dict[str, Any]) -> dict[str, Any]:
    text = " ".join((definition(name).settings.__doc__ or name).split())
    return {
        "id": name,
        "shortDescription": {"text": text.partition(". ")[0].rstrip(".") + "."},
        "fullDescription": {"text": text},
        # GitHub refuses a rule without help.
        "help": {"text": f"{text} The policy's table [{name}] sets it; `glyphpress gate init` explains every table."},
        "defaultConfiguration": {"level": "error" if table["action"] == "fail" else "warning"},
        "properties": {"limit": table},
    }


def _artifact(file: FileFacts) -> dict[str, Any]:
    return {
        "description": {"text": visible(file.name)},
        "length": file.bytes,
        "roles": ["analysisTarget"],
        "hashes": {"sha-256": file.sha256},
        "properties": {"input": file.input},
    }


def _location(path: str) -> dict[str, str]:
    return {"uri": quote(path, errors="surrogateescape"), "uriBaseId": "%SRCROOT%"}


def _result(judgement: Judgement, judged: Judged, verdict: Verdict, level: str, rule: int) -> dict[str, Any]:
    artifact = judgement.candidates.index(judged)
    location = {"artifactLocation": _location(judged.path) | {"index": artifact}, "region": {"startLine": 1}}
    allowed = allowed_text(verdict.limit, verdict.threshold)
    message = f"{verdict.outcome}: {judged.file.name}, {verdict.limit} {allowed}: {verdict.reason}"
    fingerprint = hashlib.sha256(f"{verdict.limit}\n{judged.path}".encode(errors="surrogateescape")).hexdigest()[:16]
    return {
        "ruleId": verdict.limit,
        "ruleIndex": rule,
        "level": level,
        "message": {"text": visible(message)},
        "locations": [{"physicalLocation": location}],
        # GitHub recognizes an alert of an earlier run by this, so it is of the limit and the file, not of the figures.
        "partialFingerprints": {"primaryLocationLineHash": f"{fingerprint}:1"},
        "properties": {"verdict": _open_parts(verdict)},
    }


def _open_parts(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict with only those of its parts that did not pass; `verdict.json` has them all."""
    table = to_json(verdict)
    return table | {"parts": [part for part in table["parts"] if part["outcome"] != Outcome.PASS]}
