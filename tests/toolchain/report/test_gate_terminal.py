"""Verdicts on a terminal: the parts behind what did not pass, and which of several candidates ships."""

from __future__ import annotations

import io

from rich.console import Console

from tests.fixtures.judgements import DAMAGED, LOOSE, ODD, STRICT, answers, concluded, gathered, with_damage
from toolchain.report.gate_terminal import show_verdicts, show_winner
from toolchain.report.judgement import Judgement


def lines(judgement: Judgement) -> list[str]:
    console = Console(file=io.StringIO(), width=40)
    show_verdicts([verdict for judged in judgement.candidates for verdict in judged.verdicts], console)
    show_winner(judgement, console)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_of_what_passed_only_the_verdict_is_told_a_line_each() -> None:
    printed = lines(concluded(LOOSE, gathered()))
    assert [line.split(":")[0].split() for line in printed[1:]] == [
        ["PASS", "drop"],
        ["PASS", "classes"],
        ["PASS", "size"],
    ]


def test_below_what_failed_stand_its_parts_the_worst_first_with_their_figures() -> None:
    printed = lines(concluded(LOOSE, gathered(broken=True)))
    (classes,) = (index for index, line in enumerate(printed) if line.startswith("FAIL         classes"))
    parts = [line.split() for line in printed[classes + 1 :] if line.startswith("  ")]
    assert [part[:2] for part in parts[:2]] == [["FAIL", "7"], ["FAIL", "4"]]
    assert {part[0] for part in parts} <= {"FAIL", "INCONCLUSIVE"}
    assert "at most 50.000 pp" in " ".join(parts[0])


def test_odd_class_names_are_printed_as_they_are() -> None:
    tables = DAMAGED | {"classes": {"max": "0.1pp", "action": "warn"}}
    printed = lines(concluded(tables, with_damage(answers(40, 10, 1000))))
    named = {line.split()[1] for line in printed if line.startswith(("  INCONCLUSIVE", "  FAIL"))}
    assert set(ODD) - named == set()


def test_which_of_several_ships_is_the_last_line_and_of_one_there_is_none() -> None:
    good, bad = answers(5, 5, size=900, p50=67_000), answers(400, 0, name="bad.onnx")
    assert lines(concluded(STRICT, good, bad))[-1] == ("winner     int8.onnx  900 bytes, p50 67.0 us, of 2 candidates")
    worse = answers(300, 0, name="worse.onnx")
    assert lines(concluded(STRICT, worse, bad))[-1] == (
        "winner     none of 2 candidates: worse.onnx FAIL, bad.onnx FAIL"
    )
    assert "winner" not in " ".join(lines(concluded(STRICT, good)))
