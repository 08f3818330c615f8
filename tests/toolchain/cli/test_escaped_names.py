"""Names from strangers' files on the terminal, in a workflow's log and in reports: shown, never obeyed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from targets.host.text import json_text, one_line, visible
from toolchain.cli.streams import escaped, ours

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


def test_row30_our_colhostpass_and_on_a_terminal_alone() -> None:
    red, name = "\x1b[1;31mred\x1b[0m", "\x1b[8mhidden"
    assert escaped(ours(red) + name, colours=True) == red + "\\x1b[8mhidden"
    assert escaped(ours(red) + name) == "red\\x1b[8mhidden"


@pytest.mark.parametrize("words", ["help version", "version --help"])
def test_row30_on_a_terminal_help_has_colhostand_a_file_name_has_none(words: str, tmp_path: Path) -> None:
    assert "\x1b[1m" in _on_a_terminal(tmp_path, *words.split())
    said = _on_a_terminal(tmp_path, "inspect", "a\x1b[31m.onnx")
    assert "a\\x1b[31m.onnx" in said
    assert "\x1b" not in said


def _on_a_terminal(folder: Path, *words: str) -> str:
    """Run the program with a terminal for its streams and return what it shows."""
    host, its = pty.openpty()
    command = [sys.executable, "-c", "from toolchain.cli.main import main; main()", *words]
    environ = {key: value for key, value in os.environ.items() if key not in {"CI", "NO_COLOR"}} | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=folder, env=environ, stdin=its, stdout=its, stderr=its) as run:
        os.close(its)
        said = b""
        with suppress(OSError):  # the end of a terminal that nobody writes to
            while part := os.read(host, 65536):
                said += part
        os.close(host)
    assert run.returncode in {0, 3}
    return said.decode()


@pytest.mark.parametrize("indent", [None, 1])
def test_row30_json_shows_no_marks_and_holds_the_same_values(indent: int | None) -> None:
    value = {f"k{NASTY}": [NASTY, "\u2066\u2069\u200f\u061c\udcff\n\t\x7f", "日本語 😀 é"]}
    text = json_text(value, indent)
    assert json.loads(text) == value
    assert "日本語 😀 é" in text
    assert escaped(text) == text


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
