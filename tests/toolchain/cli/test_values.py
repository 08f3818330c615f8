"""Values of options that cannot be meant: plain English, with what may be given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Finished

DATA = ("--data", "builtin:digits")
SHARE = "is not in the range; give more than 0% and less than 100%"
CASES = {
    "no whole number": (["train", *DATA, "--folds", "2.5"], "'2.5' is no whole number; give one from 2 to 1,000"),
    "no number at all": (["train", *DATA, "--seed", "abc"], "'abc' is no whole number; give one from 0 to 4,294,967"),
    "too small": (["train", *DATA, "--folds", "1"], "1 is not in the range; give a whole number from 2 to 1,000"),
    "no upper limit": (
        ["explain", "a", "b", *DATA, "--images", "0"],
        "0 is not in the range; give a whole number from 1 on",
    ),
    "no decimal": (["train", *DATA, "--lr", "fast"], "'fast' is not a number; give one above 0 to 1"),
    "infinite": (["train", *DATA, "--lr", "inf"], "'inf' is not a number; give one above 0 to 1"),
    "open limit": (["train", *DATA, "--ema", "1"], "1 is not in the range; give a number from 0 to below 1"),
    "all channels": (["prune", "a.pt", *DATA, "-o", "b.pt2", "--ratio", "100%"], f"'100%' {SHARE}"),
    "no channel": (["prune", "a.pt", *DATA, "-o", "b.pt2", "--ratio", "0%"], f"'0%' {SHARE}"),
    "all of a layer": (["prune", "a.pt", *DATA, "-o", "b.pt2", "--layer", "x=100%"], f"'100%' {SHARE}"),
    "nothing of the teacher": (
        ["distill", "a.pt", *DATA, "-o", "b.pt2", "--soft", "0%"],
        "'0%' is not in the range; give more than 0% and at most 100%",
    ),
    "certainty": (["evaluate", "a.onnx", *DATA, "--hypothesis", "100%"], f"'100%' {SHARE}"),
    "no such folder": (
        ["evaluate", "a.onnx", *DATA, "--data-root", "none"],
        "none: no such folder; give one with EMNIST",
    ),
    "list of no folder": (["data", "list", "--data-root", "none"], "none: no such folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_may_be_given(case: str, glyphpress: Callable[..., Finished]) -> None:
    words, message = CASES[case]
    done = glyphpress(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err


def test_a_folder_that_only_the_environment_names_may_be_away(
    glyphpress: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLYPHPRESS_DATA", "/not-mounted")
    assert glyphpress("data", "check", "builtin:digits", "-q").code == 0
