"""`gate plan` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Finished
from toolchain.core.json_codec import to_json
from toolchain.gate.plan import plan

Run = Callable[..., Finished]
WORDS = ("gate", "plan", "--margin", "0.3pp", "--discordance", "1%")


def test_a_plan_is_printed_and_is_the_one_of_the_library(glyphpress: Run) -> None:
    told = json.loads(glyphpress(*WORDS, "--power", "0.8", "--json").out)
    assert told.pop("schema") == "glyphpress/gate-plan/1"
    made = plan(0.003, 0.01, power=[0.8])
    assert told == json.loads(json.dumps(to_json(made)))
    shown = glyphpress(*WORDS, "--power", "0.8")
    assert shown.code == 0
    assert f"about {made.needed[0].images:,} images for 80 % power" in shown.out
    rows = [line.split() for line in shown.out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == [f"{row.images:,}" for row in made.rows]
    assert [row[1] for row in rows] == [f"{row.right_pass * 100:.1f}" for row in made.rows]


def test_more_is_needed_for_a_worse_candidate_and_a_surer_answer(glyphpress: Run) -> None:
    def needed(*words: str) -> int:
        return json.loads(glyphpress(*WORDS, "--power", "0.8", *words, "--json").out)["needed"][0]["images"]

    plain = needed()
    assert needed("--drop", "0.1pp") > plain
    assert needed("--confidence", "0.99") > plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--margin", "0.3", "--discordance", "1%"], "needs a number and a unit"),
        (["--margin", "0.3pp"], "--discordance"),
        (["--margin", "0.3pp", "--discordance", "1%", "--drop", "0.3pp"], "never shown to stay within"),
        (["--margin", "0.3pp", "--discordance", "0.1%", "--drop", "0.2pp"], "larger discordance"),
        (
            ["--margin", "0.3pp", "--discordance", "1%", "--power", "1"],
            "not in the range; give a number above 0.5 to below 1",
        ),
        (["--margin", "0.3pp", "--discordance", "1%", "--confidence", "nan"], "'nan' is not a number"),
        (["--margin", "0.3pp", "--discordance", "1%", "--drop", "-1pp"], "'-1pp' is below zero"),
        (["--margin", "1e-9pp", "--discordance", "1%"], "give a larger margin"),
        (["--margin", "1e999pp", "--discordance", "1%"], "'1e999pp' is too large"),
        (["--policy", "default", "--discordance", "1%", "--classes", "20000"], "give 1 to 1,000 classes"),
        (["--policy", "default", "--discordance", "100%"], "a discordance of 100pp cannot be simulated"),
    ],
)
def test_what_cannot_be_planned_is_one_line(glyphpress: Run, words: list[str], message: str) -> None:
    done = glyphpress("gate", "plan", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
