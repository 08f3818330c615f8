"""Completion offers the names inside the files that the line names, and is silent about files that it cannot read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests.fixtures.checkpoint_files import net_file
from tests.fixtures.saved_runs import kept, saved_run
from toolchain.cli import complete_inside
from toolchain.cli.main import glyphpress as program


def offers(line: str) -> list[str]:
    """What is offered at the end of a line, whose last word is the typed text."""
    *words, begun = line.split(" ")
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    return [item.value for item in completer.get_completions(words, begun)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("prune cnn-small --layer features.c", [f"features.conv{n}=" for n in range(1, 6)]),
        ("prune cnn-small --layer=features.conv1", ["features.conv1="]),
        ("prune cnn-small --layer features.n", []),
        ("prune --layer features.conv1", []),
        ("prune cnn-small --layer features.conv1=", []),
        ("train --from cnn-small --freeze-until features.norm1", ["features.norm1"]),
        ("train --freeze-until features.norm1", []),
    ],
)
def test_layers_are_those_of_the_checkpoint(here: Path, line: str, offered: list[str]) -> None:
    assert offers(line) == offered


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\xff" * 40, b"\x08" + b"\x00" * 7 + b'{"a": 1}', b"class :("]
)
@pytest.mark.parametrize(
    "line",
    [
        "prune a.pt --layer ",
        "press a.safetensors --weights ",
        "quantize a.onnx --keep ",
        "quantize a.tflite --keep ",
        "press x --model a.py:",
        "profile history . --since ",
        "train --data a.pt: --classes ",
    ],
)
def test_a_damaged_file_offers_nothing(here: Path, content: bytes, line: str) -> None:
    for suffix in ("pt", "safetensors", "onnx", "tflite", "py", "json"):
        (here / f"a.{suffix}").write_bytes(content)
    assert [word for word in offers(line) if word != "a.py:"] == []


def test_classes_of_a_python_file_are_offered_without_running_it(here: Path) -> None:
    net = net_file(here)
    net.write_text(net.read_text() + "\nraise SystemExit('it ran')\n")
    every = offers(f"press a.pt --model {net.name}:")
    assert every
    assert all(word.startswith(f"{net.name}:") for word in every)
    assert offers("press a.pt --model n") == every
    assert offers(f"press a.pt --model {every[0][:-1]}")[0] == every[0]
    assert "cnn-small" in offers("press a.pt --model cnn")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("evaluate a.onnx --data emnist:balanced --classes 0", ["0-9A-Zabd-hnqrt", "0-9"]),
        ("evaluate a.onnx --data emnist:letters --classes ", ["A-Z"]),
        ("evaluate a.onnx --data builtin:digits --classes ", ["0-9"]),
        ("evaluate a.onnx --data pictures --classes ", ["cat", "dog", "owl"]),
        ("evaluate a.onnx --data pictures --classes cat,", ["cat,dog", "cat,owl"]),
        ("evaluate a.onnx --classes ", []),
        ("evaluate a.onnx --data emnist:byclass[a", ["emnist:byclass[a-z]"]),
        ("evaluate a.onnx --data files:", ["files:letters", "files:digits"]),
        ("evaluate a.onnx --data files:letters --classes ", ["A-Z"]),
    ],
)
def test_data_and_its_classes_are_completed(here: Path, line: str, offered: list[str]) -> None:
    for name in ("cat", "dog", "owl", ".git"):
        (here / "pictures" / name).mkdir(parents=True)
    (here / "files" / "raw").mkdir(parents=True)
    (here / "files" / "emnist-letters-test-images-idx3-ubyte.gz").touch()
    (here / "files" / "raw" / "emnist-digits-train.csv").touch()
    assert offers(line) == offered


def test_boards_are_those_of_the_ssh_configuration(here: Path) -> None:
    assert offers("deploy a.tflite s") == ["ssh://"]
    (here / "home" / ".ssh").mkdir(parents=True)
    (here / "home" / ".ssh" / "config").write_text("Host kitchen cellar *.lab\n  User pi\n")
    assert offers("deploy a.tflite s") == ["ssh://kitchen", "ssh://cellar"]
    assert offers("targets probe ssh://k") == ["ssh://kitchen"]
    assert offers("evaluate a.onnx --target ssh://pi@c") == ["ssh://pi@cellar"]


def test_saved_runs_and_their_commits_are_offered(here: Path) -> None:
    runs = kept(here / "profiles", saved_run(0, 1e5), saved_run(1, 1e5))
    assert offers("profile compare p")[:2] == [str(path.relative_to(here)) for path in reversed(runs)]
    commits = [json.loads(path.read_text())["commit"] for path in reversed(runs)]
    assert offers("profile history --since ") == commits
    assert complete_inside.saved_runs(None, "profiles/") == []  # type: ignore[arg-type]  # the folder's files follow
