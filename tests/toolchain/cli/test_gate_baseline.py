"""`gate baseline` as a user runs it: stored once, pinned in the policy, refused where it is another one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from toolchain.ci import write_policy
from toolchain.gate.policy import read_policy

Run = Callable[..., Finished]
DATA = ("--data", "builtin:digits")
GATE = ("gate", "--policy", "gate.toml", "--baseline", "baseline.npz", "--candidate", "int8.onnx", *DATA)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the program runs in, with a float reader and an honest rounding of it."""
    monkeypatch.chdir(tmp_path)
    linear_reader(Path("float.onnx"))
    linear_reader(Path("int8.onnx"), step=1e-4)
    write_policy("smoke", Path("gate.toml"))
    return tmp_path


def test_the_lines_it_prints_pin_the_policy_and_the_gate_needs_no_float_file(glyphpress: Run) -> None:
    made = glyphpress("gate", "baseline", "float.onnx", *DATA, "-o", "baseline.npz")
    assert made.code == 0, made.err
    assert made.err.endswith("wrote baseline.npz; these lines in a policy pin it:\n")
    assert re.fullmatch(r'\[baseline\]\ndigest = "[0-9a-f]{64}"\n', made.out)
    Path("float.onnx").unlink()
    with Path("gate.toml").open("a") as policy:
        policy.write(made.out)
    assert read_policy(Path("gate.toml")).baseline
    assert glyphpress(*GATE, "--evidence", "e.json").code == 0
    # Another baseline, though of the same answers to the eye.
    linear_reader(Path("other.onnx"), step=1e-5)
    glyphpress("gate", "baseline", "other.onnx", *DATA, "-o", "baseline.npz", "--force")
    refused = glyphpress(*GATE)
    assert (refused.code, refused.out) == (3, "")
    assert "the policy was written for the stored baseline" in refused.err
    # Stored evidence keeps which baseline it was gathered against.
    assert glyphpress("gate", "--from", "e.json", "--policy", "gate.toml").code == 0
    glyphpress("gate", *GATE[3:], "--policy", "smoke", "--evidence", "f.json")
    assert glyphpress("gate", "--from", "f.json", "--policy", "smoke").code == 0
    assert glyphpress("gate", "--from", "f.json", "--policy", "gate.toml").code == 3


def test_a_policy_whose_limits_need_the_file_itself_is_noted(glyphpress: Run) -> None:
    with Path("gate.toml").open("a") as policy:
        policy.write('\n[p50_ratio]\nmax = "1.1x"\n')
    made = glyphpress("gate", "baseline", "float.onnx", *DATA, "-o", "baseline.npz", "--policy", "gate.toml")
    assert made.code == 0, made.err
    assert "a stored baseline cannot be timed, and the policy's [p50_ratio] asks for that" in made.err
    assert "a stored baseline" not in made.out
    refused = glyphpress(*GATE)
    assert (refused.code, "[p50_ratio]" in refused.err) == (2, True)


def test_it_is_one_json_object_and_never_written_over(glyphpress: Run) -> None:
    words = ("gate", "baseline", "float.onnx", *DATA, "-o", "baseline.npz")
    told = json.loads(glyphpress(*words, "--json").out)
    assert (told["schema"], told["images"], told["damage"]) == ("glyphpress/gate-baseline/1", 599, [])
    again = glyphpress(*words)
    assert (again.code, again.out, again.err.count("\n")) == (2, "", 1)
    assert "--force" in again.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.onnx", *DATA, "-o", "b.npz"], 3, "no such file"),
        (["float.onnx", *DATA, "-o", "b.onnx"], 2, "should end in .npz"),
        (["float.onnx", "--data", "builtin:digit", "-o", "b.npz"], 2, "builtin:digits"),
        (["float.onnx", *DATA, "-o", "b.npz", "--policy", "strikt"], 2, "did you mean strict"),
        (["float.onnx", *DATA], 2, "'-o'"),
    ],
)
def test_what_cannot_be_stored_is_one_line(
    *, glyphpress: Run, folder: Path, words: list[str], code: int, message: str
) -> None:
    there = sorted(folder.iterdir())
    done = glyphpress("gate", "baseline", *words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert message in done.err
    assert sorted(folder.iterdir()) == there
