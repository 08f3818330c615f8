"""Words for a shell: what is printed can be pasted, whatever a name holds."""

from __future__ import annotations

import subprocess

import pytest

from targets.host.text import one_line, shell_command, shell_word

NAMES = ("plain", "a b", "a\nb", "it's \\n", "a\u202eb'\\x", "not utf-8 \udcffa", "é", "\x1b[2J\x7f\x85", "-x", "")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_word_is_seen_as_it_is_and_read_by_a_shell_as_the_name(name: str) -> None:
    word = shell_word(name)
    assert one_line(word) == word
    done = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True
    )
    assert done.stdout == name.encode("utf-8", "surrogateescape")


def test_a_command_is_its_words() -> None:
    assert shell_command(["press", "--out", "a\nb"]) == "press --out $'a\\nb'"
