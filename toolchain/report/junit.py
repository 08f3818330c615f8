"""The judgement as JUnit XML: a test suite for each candidate, in it a test case for each limit.

CI servers show a job as passed or failed by it, so it must agree with the exit code:

- FAIL of a limit that fails is a `failure`: the candidate reads worse, is too large, too slow.
- INCONCLUSIVE of such a limit is an `error`: the test reached no result. Jenkins, GitLab, Azure DevOps and CircleCI
  show errors beside failures, and a job with either has not passed.
- A limit that only warns passes; what it measured is in `system-out`.
- Where another candidate ships instead, a limit that did not pass is `skipped`, since the exit code is 0.

The parts of a limit (classes, look-alikes, damages, runtimes) are listed in `system-out`. The schema is that of the
xunit plugin of Jenkins (junit-10.xsd), which GitLab and others read too.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from targets.host.text import visible
from toolchain.gate.outcome import Part, Verdict
from toolchain.report.judgement import Judged, Judgement, Standing, allowed_text, value_text
from toolchain.stats.decision import Outcome

_CLASS = "glyphpress.gate"


def junit(judgement: Judgement) -> str:
    """Return the judgement as an XML document."""
    root = ET.Element("testsuites", name="glyphpress gate")
    suites = [_suite(judgement, judged) for judged in judgement.candidates]
    root.extend(suites)
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(judgement: Judgement, judged: Judged) -> ET.Element:
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
    }


def _case(verdict: Verdict, standing: Standing) -> ET.Element:
    case = ET.Element("testcase", classname=_CLASS, name=verdict.limit)
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
    return f"{part.outcome} '{visible(part.name)}': {measured}, bound {bound}, {part.images:,} images{note}"
