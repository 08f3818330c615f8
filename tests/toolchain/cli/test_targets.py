"""The command `targets` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from targets import catalog

Program = Callable[..., Any]


def test_show_says_what_a_profile_and_a_target_are(glyphpress: Program) -> None:
    shown = glyphpress("targets", "show", "raspberry-pi-5")
    assert (shown.code, shown.err) == (0, "")
    for said in ("emulate    arm64:cortex-a76", "asimddp", "budgets    size = "):
        assert said in shown.out
    stored = json.loads(glyphpress("targets", "show", "raspberry-pi-5", "--json").out)
    assert (stored["schema"], stored["threads"]) == ("glyphpress/targets-show/1", 1)
    assert "formats    onnx" in glyphpress("targets", "show", "ort-cpu").out
    unknown = glyphpress("targets", "show", "raspberry-pi5")
    assert (unknown.code, unknown.out) == (2, "")
    assert "did you mean raspberry-pi-5" in unknown.err


@pytest.mark.parametrize("word", [*catalog.listed(), "ort-cuda,copies=without", "ssh://pi@kitchen"])
def test_every_target_can_be_shown(glyphpress: Program, word: str) -> None:
    shown = glyphpress("targets", "show", word)
    assert (shown.code, shown.err) == (0, "")
    assert f"name       {word}" in shown.out
    stored = json.loads(glyphpress("targets", "show", word, "--json").out)
    assert stored["formats"] == sorted(catalog.get(word).formats)


def test_the_list_holds_emulated_processors_boards_and_profiles(glyphpress: Program) -> None:
    listed = glyphpress("targets", "list").out
    for word in ("ort-cpu", "arm64:cortex-a72", "ssh://", "raspberry-pi-zero-2"):
        assert word in listed
    stored = json.loads(glyphpress("targets", "list", "--json").out)
    assert {"arm64:cortex-a53", "null"} <= {row["name"] for row in stored["targets"]}
    assert {row["name"] for row in stored["profiles"]} >= {"kiosk-x86", "raspberry-pi-4"}


def test_what_needs_no_setting_up_says_so(glyphpress: Program) -> None:
    done = glyphpress("targets", "setup", "ort-cpu")
    assert (done.code, done.out) == (2, "")
    assert "needs no setup" in done.err


def test_a_board_that_names_no_host_is_unavailable(glyphpress: Program) -> None:
    for command in ("setup", "probe"):
        done = glyphpress("targets", command, "raspberry-pi-4")
        assert (done.code, done.out) == (4, "")
        assert "ssh://USER@HOST" in done.err
        assert done.err.count("raspberry-pi-4: ") == 1
    stored = json.loads(glyphpress("targets", "probe", "raspberry-pi-4", "--json").out)
    assert (stored["ok"], stored["reason"]) == (False, "the profile names no host")
