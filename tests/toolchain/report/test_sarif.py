"""SARIF: valid to the OASIS schema, an error for whatever keeps a candidate from shipping, the same alert each time."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.fixtures.judgements import DAMAGED, LOOSE, ODD, STRICT, answers, concluded, gathered, with_damage
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import sarif

SCHEMA = Path(__file__).parents[2] / "schemas" / "sarif-schema-2.1.0.json"


@cache
def validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def only_run(judgement: Judgement) -> dict[str, Any]:
    """The one run of the log, which must be valid and whose indices must point at what they mean."""
    log = json.loads(sarif(judgement))
    validator().validate(log)
    (run,) = log["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    return dict(run)


def test_no_path_is_named_for_a_baseline_that_need_not_be_there() -> None:
    run = only_run(concluded(LOOSE, gathered()))
    candidate, baseline = run["artifacts"]
    assert candidate["location"]["uri"] == run["artifacts"][0]["description"]["text"]
    assert "location" not in baseline
    assert baseline["description"]["text"].endswith(".onnx")


def levels(run: dict[str, Any]) -> dict[str, str]:
    return {result["ruleId"]: result["level"] for result in run["results"]}


def test_the_schema_refuses_what_is_no_sarif() -> None:
    log = json.loads(sarif(concluded(STRICT, answers(400, 0))))
    assert validator().is_valid(log)
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator().is_valid(log)


def test_a_real_file_that_passes_leaves_no_result_and_its_rules_and_digests() -> None:
    judgement = concluded(LOOSE, gathered())
    run = only_run(judgement)
    assert run["results"] == []
    assert run["invocations"][0]["exitCode"] == 0
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["drop", "classes", "size"]
    assert rules[0]["properties"]["limit"]["max"] == "3pp"
    assert "non-inferiority" in rules[0]["fullDescription"]["text"]
    assert all("[" + rule["id"] + "]" in rule["help"]["text"] for rule in rules)
    assert [one["hashes"]["sha-256"] for one in run["artifacts"]] == [
        judgement.candidates[0].file.sha256,
        judgement.baseline.sha256,
    ]


def test_a_real_file_that_reads_worse_is_an_error_with_the_reason() -> None:
    run = only_run(concluded(LOOSE, gathered(broken=True), files=[Path("out/my model#1.onnx")]))
    assert levels(run) == {"drop": "error", "classes": "error"}
    assert run["invocations"][0]["exitCode"] == 1
    result = run["results"][0]
    assert result["message"]["text"].startswith("FAIL: broken.onnx, drop at most 3.000 pp: ")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "out/my%20model%231.onnx"
    assert place["region"] == {"startLine": 1}
    # Of the classes, those that did not pass.
    assert {part["outcome"] for part in run["results"][1]["properties"]["verdict"]["parts"]} <= {"FAIL", "INCONCLUSIVE"}


def test_what_could_not_be_decided_is_an_error_too_and_a_warning_is_one() -> None:
    run = only_run(concluded(STRICT, gathered()))
    assert levels(run) == {"drop": "error", "size": "warning"}
    assert run["invocations"][0] == {
        "executionSuccessful": True,
        "exitCode": 5,
        "exitCodeDescription": "INCONCLUSIVE",
    }


def test_the_beaten_are_notes_where_another_candidate_ships() -> None:
    run = only_run(concluded(STRICT, answers(5, 5), answers(400, 0, name="bad.onnx")))
    assert levels(run) == {"drop": "note"}
    assert (run["invocations"][0]["exitCode"], run["properties"]["winner"]) == (0, "int8.onnx")
    assert len(run["artifacts"]) == 3


def test_the_same_finding_has_the_same_fingerprint_whatever_the_figures() -> None:
    runs = [only_run(concluded(STRICT, answers(lost, 0))) for lost in (400, 500)]
    texts, prints = zip(
        *((run["results"][0]["message"]["text"], run["results"][0]["partialFingerprints"]) for run in runs), strict=True
    )
    assert texts[0] != texts[1]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("name", ["a\x1b[31m.onnx", "a\udcff.onnx", "ü<|>.onnx"])
def test_odd_names_of_classes_and_files_are_carried(name: str) -> None:
    run = only_run(concluded(DAMAGED, with_damage(answers(400, 10, name=name))))
    assert {"drop", "stress"} <= levels(run).keys()
    assert run["results"][0]["message"]["text"].isprintable()
    suffered = {part["name"] for result in run["results"] for part in result["properties"]["verdict"]["parts"]}
    assert suffered & set(ODD)
