"""The judgement as SARIF 2.1.0 (OASIS): its rules are the limits, its results the verdicts other than PASS.

GitHub fails a check only on results of level `error`. So every verdict that keeps a candidate from shipping is an
`error`, INCONCLUSIVE too: a gate that could not decide has not passed. A limit that only warns gives a `warning`, and a
candidate that another one beat gives a `note`. GitHub requires a line number for each result; a model file has no
lines, so all results point to line 1.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from targets.host.text import json_text, visible
from toolchain.core.errors import GateFailed, GateInconclusive, exit_code
from toolchain.core.json_codec import to_json
from toolchain.evaluation.paired_answers import FileFacts
from toolchain.gate.limits import LIMITS, definition
from toolchain.gate.outcome import Verdict
from toolchain.report.judgement import Judged, Judgement, Standing, allowed_text
from toolchain.stats.decision import Outcome

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Standing, str] = {"stopped": "error", "warned": "warning", "beaten": "note"}
_CODES = {
    Outcome.PASS: 0,
    Outcome.FAIL: exit_code(GateFailed()),
    Outcome.INCONCLUSIVE: exit_code(GateInconclusive()),
}


def sarif(judgement: Judgement) -> str:
    """Return the SARIF log as JSON text; it holds one run."""
    judged_limits = {verdict.limit for _, verdict, _ in judgement.verdicts()}
    rules = [name for name in LIMITS if name in judged_limits]
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
        "properties": {"competitors": judgement.competitors, "winner": judgement.winner, "tools": judgement.tools},
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
