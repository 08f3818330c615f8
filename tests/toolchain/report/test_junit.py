"""JUnit XML: valid to the xunit plugin of Jenkins, never greener than the exit code, whatever classes are called."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.judgements import DAMAGED, LOOSE, ODD, STRICT, answers, concluded, gathered, with_damage
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import junit

XSD = Path(__file__).parents[2] / "schemas" / "junit-10.xsd"


@cache
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(XSD)


def suites(judgement: Judgement) -> list[ET.Element]:
    """The test suites of the document, which must be valid and whose counts must be true."""
    document = junit(judgement)
    schema().validate(document)
    root = ET.fromstring(document.encode())
    found = root.findall("testsuite")
    for suite in found:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(count) == str(len(suite.findall(f"testcase/{kind}")))
    for count in ("tests", "failures", "errors"):
        assert root.get(count) == str(sum(int(suite.get(count, "")) for suite in found))
    return found


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
    told = {name: bad.findtext(f"testcase[@name='{name}']/system-out", "") for name in ("drop", "classes")}
    assert told["drop"].startswith("FAIL drop: ")
    assert "\nFAIL '4': " in told["classes"]
    assert told["classes"].count("\n") == 11


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
    assert [marks(one) for one in suites(concluded(STRICT, worse, bad))] == [{"drop": "failure FAIL"}] * 2


def test_class_names_that_mean_something_to_xml_survive() -> None:
    (suite,) = suites(concluded(DAMAGED, with_damage(answers(400, 10))))
    told = suite.findtext("testcase[@name='classes']/system-out", "")
    for name in ODD:
        assert f"'{name}': " in told
    assert suite.find("testcase[@name='stress']/failure") is not None


@cache
def failed() -> Judgement:
    return concluded(STRICT, answers(400, 0, 2000))


@settings(max_examples=40)
@given(st.text())
def test_any_words_give_a_valid_document_that_says_them(words: str) -> None:
    judgement = failed()
    (judged,) = judgement.candidates
    verdicts = tuple(replace(one, reason=words) for one in judged.verdicts)
    (suite,) = suites(replace(judgement, candidates=(replace(judged, verdicts=verdicts),)))
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("FAIL: ")
    plain = "".join(words.split())
    if plain.isalnum() and plain.isascii():
        assert plain in "".join(failure.get("message", "").split())


@pytest.mark.parametrize("mark", ["\x00", "\x1b[31m", "\ud800", "\uffff", "\u2028"])
def test_control_characters_are_shown_rather_than_sent(mark: str) -> None:
    (suite,) = suites(concluded(STRICT, answers(5, 5, name=f"a{mark}b.onnx")))
    name = suite.get("name", "")
    assert name.isprintable()
    assert name.startswith("a")
