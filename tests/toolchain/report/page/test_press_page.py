"""The page of a press: what it says first, that it says all, and that no name on it becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from targets.artifact import Fidelity
from tests.fixtures.hostile_report import hostile_press
from tests.fixtures.judgements import answers
from tests.fixtures.pages import check_page, read_page
from tests.fixtures.reports import pressed_report
from toolchain.evaluation.compare import comparison
from toolchain.report.page.press_page import PressDetails, press_html
from toolchain.report.page.press_ruling import press_ruling
from toolchain.report.report import Failure, Report
from toolchain.stats.decision import Outcome


def test_the_page_of_a_winner_says_what_to_ship_and_why_in_one_sentence() -> None:
    report = pressed_report(3)
    ruling = press_ruling(report, ".")
    assert (ruling.status, ruling.tone) == ("Ready to ship", "pass")
    assert ruling.sentence == (
        "Ship int8.onnx: it is 3.7 times smaller than the float file and runs 1.5 times as fast. It reads 99.98 % of "
        "18,800 test images correctly (float 99.97 %); with 95 % confidence it loses at most 0.02 pp."
    )
    assert ruling.link
    assert ruling.link.href == "./int8.onnx"
    assert ruling.about.endswith("…, beside this page")
    assert press_ruling(report, "../out").about.endswith("…, in ../out")
    busy = press_ruling(replace(report, notes=("NOT QUIET: 1.7 of 2 cores busy",)), ".").sentence
    assert busy == f"{ruling.sentence} The machine was not quiet while files were timed."


def floats_only() -> Report:
    report = pressed_report(3)
    return replace(report, rows=tuple(replace(row, recipe="float", winner=row.baseline) for row in report.rows))


def unchosen(lost: int) -> Report:
    report = pressed_report(lost)
    return replace(report, rows=tuple(replace(row, winner=False) for row in report.rows))


@pytest.mark.parametrize(
    ("report", "status", "part"),
    [
        (floats_only(), "Keep the float model", "Ship float.onnx, the float file: no pressed file is smaller, is not"),
        (unchosen(3), "All files pass", "none was chosen"),
        (unchosen(3_000), "Do not ship", "No file passes. int8.onnx, drop: "),
        (unchosen(70), "Not decided", "No file is shown to pass. int8.onnx, drop: "),
        (replace(unchosen(3), rows=unchosen(3).rows[:1]), "Nothing was judged", "float.onnx is the only file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_press_without_a_winner_says_so_first(report: Report, status: str, part: str) -> None:
    ruling = press_ruling(report, ".")
    assert ruling.status == status
    assert part in ruling.sentence
    assert status in check_page(press_html(report)).text


def test_files_that_fail_or_are_missing_stand_in_the_first_sentence_though_another_wins() -> None:
    report = pressed_report(3)
    failed = replace(pressed_report(3_000).rows[1], name="bad.onnx")
    report = replace(report, rows=(*report.rows, failed), failures=(Failure("lost.tflite", "no kernel"),))
    assert failed.outcome is Outcome.FAIL
    ruling = press_ruling(report, ".")
    assert ruling.status == "Ready to ship"
    assert "1 of the other files fails." in ruling.sentence
    assert "with 97.5 % confidence it loses at most" in ruling.sentence
    assert "1 file that was asked for could not be made." in ruling.sentence
    assert "lost.tflite was not made: no kernel" in read_page(press_html(report)).text


def test_a_slower_and_larger_file_is_not_praised() -> None:
    report = pressed_report(3, median=120_000)
    rows = (report.rows[0], replace(report.rows[1], shrink=0.8))
    sentence = press_ruling(replace(report, rows=rows), ".").sentence
    assert "it is 1.25 times as large as the float file and takes 1.21 times as long." in sentence


def test_the_page_says_every_fact_of_the_report() -> None:
    report = replace(pressed_report(), created="2026-11-29T04:24:05+00:00")
    page = check_page(press_html(report))
    for row in report.rows:
        assert row.name in page.text
        assert row.sha256 in page.text
    facts = [
        report.checkpoint.sha256,
        report.dataset.sha256,
        "512 images of emnist:balanced/train, seed 0",
        "pruned 20 %",
    ]
    facts += ["29 November 2026, 04:24 UTC", "Some *CPU*", "avx2, fma", "onnxruntime 1.31.1", "3 read as 8: +30"]
    facts += ["glyphpress press cnn.pt --model 'cnn.py:Net(3, 4)'", "weights | per channel", "found: 88.4 % right"]
    facts += [verdict.reason for verdict in report.verdicts]
    assert [fact for fact in facts if fact not in page.text] == []
    assert not any(counter in page.text for counter in ("work_s", "own_s", "clock_s", "44294"))


def test_the_files_are_links_beside_the_page_or_where_they_lie() -> None:
    report = pressed_report(3)
    links = [link["href"] for link in check_page(press_html(report, folder="../runs/a b")).all("a")]
    assert links.count("../runs/a%20b/int8.onnx") == 2
    renamed = replace(report, rows=(report.rows[0], replace(report.rows[1], name="javascript:hacked=1//../x.onnx")))
    links = [link["href"] for link in check_page(press_html(renamed)).all("a")]
    assert links.count("./javascript%3Ahacked%3D1%2F%2F..%2Fx.onnx") == 2


def test_the_commands_run_where_the_press_ran_with_its_images_and_limits() -> None:
    report = pressed_report(3)
    options = ("--data", "my files", "--max-drop=1pp", "--policy", "smoke", "--out", "out/a b")
    report = replace(report, command=("glyphpress", "press", "cnn.pt", *options))
    text = check_page(press_html(report)).text
    files = "--baseline 'out/a b/float.onnx' --candidate 'out/a b/int8.onnx'"
    assert f"glyphpress gate {files} --data 'my files' --policy smoke --max-drop 1pp" in text
    assert "glyphpress explain 'out/a b/float.onnx' 'out/a b/int8.onnx' --data 'my files'" in text
    assert "netron 'out/a b/int8.onnx'" in text
    pruned = replace(report.rows[1], fidelity=Fidelity("int8.float.onnx", 32, 30.0, 1.0))
    other = press_html(replace(report, rows=(report.rows[0], pruned)))
    assert "glyphpress explain" not in other, "its float file is not in the folder"
    assert "glyphpress gate" in other


def test_no_name_becomes_markup_or_script() -> None:
    report, evidence = hostile_press()
    html = press_html(report, PressDetails(evidence))
    page = check_page(html)
    assert page.text.count("<script>hacked=1</script>") > 40
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert "\\u202e" in html


def test_no_name_of_real_answers_becomes_markup() -> None:
    evidence = answers(30, 5)
    report = pressed_report(30)
    html = press_html(replace(report, comparisons=(comparison(evidence.pairs),)), PressDetails([evidence]))
    check_page(html)


def test_a_page_of_ten_files_and_47_classes_stays_small(large_page: Path) -> None:
    html = large_page.read_text(encoding="utf-8")
    page = check_page(html)
    assert len(html.encode()) < 300_000
    assert [each["id"] for each in page.all("section") if "id" in each] == [
        *("picture", "files", "limits", "classes", "confusions", "flipped", "layers", "latency", "operators", "ranges"),
        *("reliability", "machine", "versions", "commands"),
    ], "nothing is left out for it"
    tiles = [each for each in page.all("svg") if "aria-label" in each]
    assert len(tiles) > 100
    assert len(page.all("use")) == len(tiles)
    assert len(page.all("image")) == 1


def test_wide_tables_say_their_headings_where_rows_are_drawn_as_blocks() -> None:
    page = check_page(press_html(pressed_report(3_000)))
    assert '.t0 td:nth-child(2){--label:"size"}' in page.own["style"]
    kinds = {word for table in page.all("table") for word in table.get("class", "").split()}
    labelled = set(re.findall(r"\.(t\d+) td", page.own["style"]))
    assert labelled == {kind for kind in kinds if re.fullmatch(r"t\d+", kind)}
