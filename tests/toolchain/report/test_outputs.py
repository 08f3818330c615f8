"""The gate's files for CI: each whole or not at all, valid to its schema, never greener than the exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import xmlschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from targets.host.text import visible
from tests.fixtures.judgements import DAMAGED, LOOSE, ODD, STRICT, answers, concluded, gathered, with_damage
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import Outputs, annotate, commands, junit, sarif, write


def everything(folder: Path, *, force: bool = False) -> Outputs:
    names = ("gate.xml", "gate.sarif", "the gate.md", "verdict.json")
    junit, sarif, markdown, verdict = (folder / name for name in names)
    return Outputs(junit, sarif, markdown, verdict, force)


def test_all_four_files_and_the_contact_sheet_are_written(tmp_path: Path) -> None:
    judgement = concluded(LOOSE, gathered())
    write(judgement, [gathered()], everything(tmp_path / "new"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "gate.sarif",
        "gate.xml",
        "the gate.flips.png",
        "the gate.md",
        "verdict.json",
    ]
    assert Judgement.load(tmp_path / "new" / "verdict.json") == judgement
    assert ET.parse(tmp_path / "new" / "gate.xml").getroot().get("tests") == "3"
    assert json.loads((tmp_path / "new" / "gate.sarif").read_text(encoding="utf-8"))["version"] == "2.1.0"
    markdown = (tmp_path / "new" / "the gate.md").read_text(encoding="utf-8")
    link = re.search(r"!\[.*\]\((.*)\)", markdown)
    assert link
    with Image.open(tmp_path / "new" / unquote(link[1])) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 200


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    write(concluded(LOOSE, gathered()), [gathered()], Outputs(junit=tmp_path / "gate.xml"))
    assert [path.name for path in tmp_path.iterdir()] == ["gate.xml"]
    same = answers(0, 0)
    write(concluded(LOOSE, same), [same], Outputs(markdown=tmp_path / "gate.md"))
    assert not (tmp_path / "gate.flips.png").exists(), "there was nothing to show"


@pytest.mark.parametrize("existing", ["gate.xml", "gate.sarif", "the gate.md", "the gate.flips.png", "verdict.json"])
def test_a_file_that_is_there_stops_it_before_any_is_written(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(UsageProblem, match="--force"):
        everything(tmp_path).refuse_existing()
    with pytest.raises(UsageProblem, match="--force"):
        write(concluded(LOOSE, gathered()), [gathered()], everything(tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(existing, "mine")]
    write(concluded(LOOSE, gathered()), [gathered()], everything(tmp_path, force=True))
    assert len(list(tmp_path.iterdir())) == 5


def test_two_outputs_cannot_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="named for two outputs"):
        Outputs(junit=tmp_path / "x", verdict=tmp_path / "x", force=True).refuse_existing()
    with pytest.raises(UsageProblem, match=r"flips\.png was named for two"):
        Outputs(markdown=tmp_path / "a.md", verdict=tmp_path / "a.flips.png").refuse_existing()


def test_the_evidence_of_another_candidate_is_refused(tmp_path: Path) -> None:
    judgement = concluded(STRICT, answers(5, 5), answers(400, 0, name="bad.onnx"))
    for evidence in ([], [answers(5, 5)], [answers(400, 0, name="bad.onnx"), answers(5, 5)]):
        with pytest.raises(EvidenceError, match="other candidates"):
            write(judgement, evidence, everything(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_inside_actions_the_run_is_annotated_and_its_page_has_the_flips_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    write(concluded(LOOSE, gathered(broken=True)), [gathered(broken=True)], Outputs())
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ")[0] for line in err.splitlines()] == ["::error", "::error"]
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert page.startswith("## glyphpress gate: FAIL")
    assert "characters that flipped" in page
    assert "![" not in page


def test_a_file_name_that_is_no_utf8_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    odd = answers(400, 0, name="a\udcff.onnx")
    write(concluded(STRICT, odd), [odd], everything(tmp_path))
    assert Judgement.load(tmp_path / "verdict.json").candidates[0].file.name == "a\udcff.onnx"
    assert "\\udcff" in (tmp_path / "the gate.md").read_text(encoding="utf-8")


XSD = Path(__file__).parents[2] / "schemas" / "junit-10.xsd"


@cache
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(XSD)


def suites(judgement: Judgement) -> list[ET.Element]:
    """The test suites of the document, which must be valid and whose counts must be true."""
    document = junit(judgement)
    schema().validate(document)
    root = ET.fromstring(document.encode())
    elements = root.findall("testsuite")
    for suite in elements:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(count) == str(len(suite.findall(f"testcase/{kind}")))
    for count in ("tests", "failures", "errors"):
        assert root.get(count) == str(sum(int(suite.get(count, "")) for suite in elements))
    return elements


def marks(suite: ET.Element) -> dict[str, str]:
    """What each limit's case is marked as, where it is marked."""
    cases = ((case.get("name", ""), case[0]) for case in suite.findall("testcase"))
    return {name: f"{first.tag} {first.get('type')}" for name, first in cases if first.tag != "system-out"}


def test_the_schema_refuses_what_ci_servers_refuse() -> None:
    assert not schema().is_valid('<testsuites><testsuite name="x" tests="1"/></testsuites>')
    assert not schema().is_valid('<testsuites><testcase classname="x"/></testsuites>')


def test_a_real_file_that_passes_is_green_and_one_that_reads_worse_is_not() -> None:
    (good,) = suites(concluded(LOOSE, gathered()))
    assert (good.get("name"), good.get("tests"), marks(good)) == ("int8.onnx", "3", {})
    (bad,) = suites(concluded(LOOSE, gathered(broken=True)))
    assert marks(bad) == {"drop": "failure FAIL", "classes": "failure FAIL"}
    failure = bad.find("testcase[@name='drop']/failure")
    assert failure is not None
    assert "pp on" in failure.get("message", "")
    assert "at most 3.000 pp allowed" in (failure.text or "")
    output = {name: bad.findtext(f"testcase[@name='{name}']/system-out", "") for name in ("drop", "classes")}
    assert output["drop"].startswith("FAIL drop: ")
    assert "\nFAIL '4': " in output["classes"]
    assert output["classes"].count("\n") == 11


def test_what_could_not_be_decided_is_an_error_so_that_no_job_turns_green() -> None:
    (suite,) = suites(concluded(STRICT | {"size": {"max": "250KB"}}, gathered()))
    assert marks(suite) == {"drop": "error INCONCLUSIVE"}
    assert suite.get("errors") == "1"


def test_a_limit_that_only_warns_passes_and_says_what_it_found() -> None:
    (suite,) = suites(concluded(STRICT, answers(5, 5, size=2000)))
    assert marks(suite) == {}
    assert suite.findtext("testcase[@name='size']/system-out", "").startswith("FAIL (only warns) size: ")


def test_of_several_candidates_the_beaten_are_skipped_only_where_another_ships() -> None:
    good, bad = answers(5, 5), answers(400, 0, name="bad.onnx", size=100)
    assert [marks(suite) for suite in suites(concluded(STRICT, good, bad))] == [{}, {"drop": "skipped FAIL"}]
    worse = answers(300, 0, name="worse.onnx")
    assert [marks(suite) for suite in suites(concluded(STRICT, worse, bad))] == [{"drop": "failure FAIL"}] * 2


def test_class_names_that_mean_something_to_xml_survive() -> None:
    (suite,) = suites(concluded(DAMAGED, with_damage(answers(400, 10))))
    output = suite.findtext("testcase[@name='classes']/system-out", "")
    for name in ODD:
        assert f"'{name}': " in output
    assert suite.find("testcase[@name='stress']/failure") is not None


@cache
def failed() -> Judgement:
    return concluded(STRICT, answers(400, 0, 2000))


@settings(max_examples=40)
@given(st.text())
def test_any_words_give_a_valid_document_that_says_them(reason: str) -> None:
    judgement = failed()
    (judged,) = judgement.candidates
    verdicts = tuple(replace(verdict, reason=reason) for verdict in judged.verdicts)
    (suite,) = suites(replace(judgement, candidates=(replace(judged, verdicts=verdicts),)))
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("FAIL: ")
    plain = "".join(reason.split())
    if plain.isalnum() and plain.isascii():
        assert plain in "".join(failure.get("message", "").split())


@pytest.mark.parametrize("mark", ["\x00", "\x1b[31m", "\ud800", "\uffff", "\u2028"])
def test_control_characters_are_shown_rather_than_sent(mark: str) -> None:
    (suite,) = suites(concluded(STRICT, answers(5, 5, name=f"a{mark}b.onnx")))
    name = suite.get("name", "")
    assert name.isprintable()
    assert name.startswith("a")


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
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][location["index"]]["location"]["uri"] == location["uri"]
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
    assert [artifact["hashes"]["sha-256"] for artifact in run["artifacts"]] == [
        judgement.candidates[0].file.sha256,
        judgement.baseline.sha256,
    ]


def test_a_real_file_that_reads_worse_is_an_error_with_the_reason() -> None:
    run = only_run(concluded(LOOSE, gathered(broken=True), files=[Path("out/my model#1.onnx")]))
    assert levels(run) == {"drop": "error", "classes": "error"}
    assert run["invocations"][0]["exitCode"] == 1
    result = run["results"][0]
    assert result["message"]["text"].startswith("FAIL: broken.onnx, drop at most 3.000 pp: ")
    location = result["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "out/my%20model%231.onnx"
    assert location["region"] == {"startLine": 1}
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


COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^,:]*,)*title=[^,:]*)::(.*)")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Read a command back as the runner of GitHub Actions does: name, properties, message."""
    match = COMMAND.fullmatch(line)
    assert match, line
    properties = dict(item.split("=", 1) for item in match[2].split(","))
    escapes = {"%3A": ":", "%2C": ",", "%0D": "\r", "%0A": "\n", "%25": "%"}

    def plain(escaped: str) -> str:
        return re.sub("%(3A|2C|0D|0A|25)", lambda escape: escapes[escape[0]], escaped)

    return match[1], {key: plain(value) for key, value in properties.items()}, plain(match[3])


def test_what_stops_a_candidate_is_an_error_and_what_warns_a_warning() -> None:
    lines = [read(line) for line in commands(concluded(STRICT, gathered(), files=[Path("out/a,b:c.onnx")]))]
    assert [name for name, _, _ in lines] == ["error", "warning"]
    _, properties, message = lines[0]
    assert properties == {"file": "out/a,b:c.onnx", "line": "1", "title": "glyphpress gate INCONCLUSIVE: drop"}
    assert message.startswith("int8.onnx: ")
    assert "95 % confidence" in message


def test_where_another_candidate_ships_the_beaten_are_only_noticed() -> None:
    lines = [read(line) for line in commands(concluded(STRICT, answers(5, 5), answers(400, 0, name="bad.onnx")))]
    assert [name for name, _, _ in lines] == ["notice", "notice"]
    assert lines[1][2] == "int8.onnx may ship in place of float.onnx"


@settings(max_examples=100)
@example("100%0A, %25 %3A")
@given(st.text())
def test_any_words_come_back_from_one_line(text: str) -> None:
    (judged,) = failed().candidates
    verdicts = tuple(replace(verdict, reason=text) for verdict in judged.verdicts)
    judgement = replace(failed(), candidates=(replace(judged, verdicts=verdicts, path=text),))
    (line,) = commands(judgement)
    _, properties, message = read(line)
    assert message == visible(f"int8.onnx: {text}")
    assert properties.get("file", "") == visible(text)


@pytest.fixture
def actions(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a step of GitHub Actions."""
    return lambda: {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}


def test_they_go_to_stderr_and_the_summary_is_appended(
    actions: Callable[..., dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.md").write_text("of an earlier command\n")
    annotate(failed(), "## it ä\n", actions())
    out, err = capsys.readouterr()
    assert out == ""
    assert [read(line)[0] for line in err.splitlines()] == ["error"]
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "of an earlier command\n## it ä\n"


@pytest.mark.parametrize("environment", [{}, {"GITHUB_ACTIONS": "false"}, {"CI": "true"}])
def test_elsewhere_nothing_is_said(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotate(failed(), "## it\n", environment | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "summary.md").exists()


def test_a_step_without_a_page_is_annotated_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    annotate(failed(), "## it\n", {"GITHUB_ACTIONS": "true"})
    assert capsys.readouterr().err.startswith("::error ")
