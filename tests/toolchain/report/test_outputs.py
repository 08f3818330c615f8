"""The gate's files: each whole or not at all, none over another, and what GitHub Actions is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from tests.fixtures.judgements import LOOSE, STRICT, answers, concluded, gathered
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import Outputs, write


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
    told = (tmp_path / "new" / "the gate.md").read_text(encoding="utf-8")
    link = re.search(r"!\[.*\]\((.*)\)", told)
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


@pytest.mark.parametrize("there", ["gate.xml", "gate.sarif", "the gate.md", "the gate.flips.png", "verdict.json"])
def test_a_file_that_is_there_stops_it_before_any_is_written(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageProblem, match="--force"):
        everything(tmp_path).refuse_existing()
    with pytest.raises(UsageProblem, match="--force"):
        write(concluded(LOOSE, gathered()), [gathered()], everything(tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]
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
