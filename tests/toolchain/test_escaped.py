"""Names from strangers' files on the terminal, in a workflow's log and in reports: shown, never obeyed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.cli.streams import escaped
from toolchain.visible import one_line, visible

NASTY = "a\x1b]0;title\x07b\x1b[2Jc\u202ed\x9b3me"


@pytest.mark.parametrize("colours", [False, True])
def test_row30_control_and_direction_characters_are_escaped(colours: bool) -> None:
    shown = escaped(NASTY, colours=colours)
    assert shown == "a\\x1b]0;title\\x07b\\x1b[2Jc\\u202ed\\u009b3me"
    assert not any(mark in visible(NASTY) for mark in "\x1b\x07\u202e\x9b")


def test_row30_a_break_in_a_name_is_seen_in_its_line() -> None:
    assert one_line("a\r\n  b\u2028c") == "a\\r\\n  b\\u2028c"
    assert visible("a\r\n  b") == "a b"


def test_row30_no_line_of_a_stranger_is_a_workflow_command() -> None:
    assert escaped("x\n::set-env name=A::b\n  ::add-mask::c") == "x\n:\\:set-env name=A::b\n  :\\:add-mask::c"
    ours = "::error file=a.onnx,line=1,title=glyphpress gate FAIL%3A drop::why"
    assert escaped(ours) == ours


def test_row30_colours_pass_on_a_terminal_alone() -> None:
    assert escaped("\x1b[1;31mred\x1b[0m", colours=True) == "\x1b[1;31mred\x1b[0m"
    assert "\x1b" not in escaped("\x1b[1;31mred")


def test_row30_a_name_in_metadata_is_not_printed_raw(tmp_path: Path) -> None:
    header = json.dumps(
        {"__metadata__": {"glyphpress": json.dumps({"model": f"{NASTY}\n::stop-commands::x"})}}
    ).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    command = [sys.executable, "-c", "from toolchain.cli.main import main; main()", "inspect"]
    for words in (["m.safetensors"], [f"{NASTY}.pt"]):
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, check=False, timeout=120)
        said = (done.stdout + done.stderr).decode()
        assert said
        assert not any(mark in said for mark in "\x1b\x07\u202e\x9b"), said
        assert not any(line.strip().startswith("::") for line in said.splitlines()), said
