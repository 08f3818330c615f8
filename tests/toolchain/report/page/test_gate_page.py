"""The page of a gate: what it says first agrees with the exit code, and names of classes stay text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.judgements import DAMAGED, LOOSE, STRICT, answers, concluded, gathered, with_damage
from tests.fixtures.pages import check_page, read_page
from tests.fixtures.viewed_pages import Viewer
from toolchain.report.outputs import Outputs, write
from toolchain.report.page.gate_page import gate_html


@pytest.mark.parametrize(
    ("lost", "status", "sentence"),
    [
        (3, "May ship", "int8.onnx may ship in place of float.onnx: it is"),
        (700, "Must not ship", "int8.onnx does not pass. drop: "),
        (70, "Not decided", "int8.onnx is not shown to pass. drop: "),
    ],
)
def test_the_page_says_first_what_the_gate_concluded(lost: int, status: str, sentence: str) -> None:
    evidence = answers(lost, 5)
    judgement = concluded({"drop": {"max": "0.3pp"}}, evidence)
    page = check_page(gate_html(judgement, [evidence], command=["glyphpress", "gate"]))
    assert f"{status} {sentence}" in page.text
    assert f"at most {100 * judgement.candidates[0].comparison.upper:.2f} pp" in page.text
    for fact in (judgement.baseline.sha256, judgement.candidates[0].file.sha256, "[drop]", "max = 0.3pp", "京", "*_*"):
        assert fact in page.text


def test_of_several_candidates_the_page_shows_the_one_that_ships_and_each_other_one() -> None:
    bad, good = answers(700, 5, name="bad.onnx"), answers(3, 5, name="good.onnx")
    judgement = concluded(STRICT, bad, good)
    page = check_page(gate_html(judgement, [bad, good]))
    assert "2 candidates against float.onnx" in page.text
    assert "May ship good.onnx may ship in place of float.onnx" in page.text
    assert "bad.onnx drop FAIL" in page.text
    assert page.text.count("characters whose answer changed") == 2
    none = read_page(gate_html(concluded(STRICT, bad, answers(900, 5)), [bad, answers(900, 5)]))
    assert "Must not ship No candidate passes. drop: " in none.text


def test_bounds_of_several_are_those_at_the_corrected_confidence() -> None:
    first, second = answers(3, 5, name="first.onnx"), answers(30, 25, name="second.onnx")
    judgement = concluded({"drop": {"max": "5pp"}}, first, second)
    text = check_page(gate_html(judgement, [first, second])).text
    assert "drop at most: with 97.5 % confidence; every confidence is corrected for a choice among 2" in text
    assert "with 95 % confidence" not in text
    for judged in judgement.candidates:
        (verdict,) = judged.verdicts
        assert judgement.most_lost(judged) == verdict.bound
        assert f"{100 * (verdict.bound or 0):.3f} pp" in text
        assert f"{100 * judged.comparison.upper:.3f} pp" not in text


def test_a_key_figure_has_the_colour_of_its_own_limit() -> None:
    evidence = answers(700, 5)
    judgement = concluded({"drop": {"max": "0.3pp"}, "size": {"max": "250KB"}}, evidence)
    cards = re.findall(r'<li class="(\w*)"><span class="name">([^<]+)', gate_html(judgement, [evidence]))
    assert [(name, tone) for tone, name in cards][:3] == [
        ("Size", "pass"), ("Accuracy", ""), ("Drop in accuracy", "fail")
    ]  # fmt: skip


def test_the_parts_of_a_limit_are_listed() -> None:
    evidence = with_damage(answers(30, 5))
    page = check_page(gate_html(concluded(DAMAGED, evidence), [evidence]))
    assert "int8.onnx, stress: " in page.text
    assert "without a PASS" in page.text


def test_the_page_is_written_whole_and_links_to_the_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, viewer: Viewer
) -> None:
    monkeypatch.chdir(tmp_path)
    evidence, model = gathered(), tmp_path / "models" / "int8.onnx"
    model.parent.mkdir()
    model.write_bytes(b"model")
    path = tmp_path / "pages" / "gate.html"
    write(concluded(LOOSE, evidence, files=[model]), [evidence], Outputs(html=path, command=("glyphpress", "gate")))
    assert [link["href"] for link in check_page(path.read_text()).all("a")].count("../models/int8.onnx") == 2
    assert viewer.faults(path, width=390, scheme="dark") == []
