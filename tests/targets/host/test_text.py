"""Words for a shell can be pasted, whatever a name holds; and a result of a later glyphpress says so."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from targets.host.text import instead_of, one_line, shell_command, shell_word

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


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_result_of_a_later_format_names_who_made_it_and_says_to_update(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    for facts, maker in (
        ({"tool": "1.4.0"}, "glyphpress 1.4.0"),
        ({"tools": {"numpy": "2", "glyphpress": "1.4.0rc1"}}, "glyphpress 1.4.0rc1"),
        ({"tool": "\x1b[31m"}, "a later glyphpress"),
        ({}, "a later glyphpress"),
    ):
        text = json.dumps({"schema": "glyphpress/baseline/3", "rest": "x" * 5000} | facts)
        if suffix == ".npz":
            np.savez(path, meta=np.array(text))
        else:
            path.write_text(text)
        said = instead_of(path, "glyphpress/baseline/2")
        later = rf"was made by {re.escape(maker)} \(format 3\); this is .*, which reads up to 2: update glyphpress"
        assert re.fullmatch(later, said), said
        assert instead_of(path, "glyphpress/baseline/3") == instead_of(path, "glyphpress/baseline/4") == ""
