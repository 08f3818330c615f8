"""A model that `glyphpress deploy` puts on a board: what reads there, what is refused, and the way back."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from calibration.glyph import glyph
from calibration.load import load
from targets.metadata import load_artifact
from targets.ssh import bundle, deployment
from tests.fixtures.digit_files import digit_files
from tests.fixtures.local_board import LocalBoard, local_board
from toolchain.commands import deploy
from toolchain.gate.candidate import open_session

FLOAT, INT8 = "digits.float.onnx", "digits.static-int8.onnx"


def without_wheels(folder: Path, *_: object) -> None:
    """Stand in for the packages: a board that is this machine has them."""
    (folder / "none.txt").write_text("")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    digit_files(tmp_path)
    return tmp_path


@pytest.fixture
def kitchen(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, glyphpress
) -> Iterator[LocalBoard]:
    """A board that was set up."""
    folder = tmp_path_factory.mktemp("board")
    board = local_board(folder)
    monkeypatch.setenv("GLYPHPRESS_SSH", board.ssh)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(bundle, "install_wheels", without_wheels)
    assert glyphpress("targets", "setup", board.word).code == 0
    yield board
    board.end()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A scan of a digit."""
    image = load("builtin:digits", "test").images[3]
    Image.fromarray(255 - image).resize((90, 90)).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def read_here(model: Path, picture: Path) -> str:
    with open_session(artifact := load_artifact(model)) as session:
        return artifact.classes[session.run(glyph(Image.open(picture))[None]).argmax()]


def asked(port: int, content: bytes | None = None) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", content, timeout=20) as stream:
        return json.loads(stream.read())


def running(board: LocalBoard, name: str = "reader") -> str:
    """Return the model that runs there."""
    (found,) = (board.home / f".local/share/glyphpress/{name}/current").glob("*.onnx")
    return found.name


@pytest.mark.slow
def test_a_deployed_model_reads_pictures_there_and_the_version_before_comes_back(
    glyphpress, kitchen: LocalBoard, models: Path, picture: Path
) -> None:
    port = free_port()
    done = glyphpress("deploy", models / FLOAT, kitchen.word, "--port", port)
    assert done.code == 0, done.err
    assert f"{kitchen.word}: reader is {FLOAT} now; it answered 50 pictures there as here" in done.out
    command = next(line for line in done.out.splitlines() if "PICTURE..." in line).split()[3]
    said = subprocess.run([*kitchen.ssh.split(), f"{command} {picture}"], capture_output=True, text=True, check=True)
    expected = read_here(models / FLOAT, picture)
    assert said.stdout.startswith(f"{picture}: {expected}  ")
    assert asked(port)["sha256"] == load_artifact(models / FLOAT).sha256
    answer = asked(port, picture.read_bytes())
    assert answer["character"] == expected
    with pytest.raises(urllib.error.HTTPError, match="400"):
        asked(port, b"no picture")
    assert asked(port, picture.read_bytes()) == answer, "a bad picture does no harm"

    told = glyphpress("deploy", models / INT8, kitchen.word, "--port", port, "--json")
    facts = json.loads(told.out)
    assert (facts["file"], facts["answers"], facts["service"]) == (INT8, 50, "glyphpress-reader.service")
    assert facts["previous"]
    assert (running(kitchen), asked(port)["model"]) == (INT8, INT8)
    back = glyphpress("deploy", kitchen.word, "--rollback", "--port", port)
    assert back.out.startswith(f"{kitchen.word}: reader is {FLOAT} again (version {facts['previous']})\n")
    assert (running(kitchen), asked(port)["model"]) == (FLOAT, FLOAT)
    versions = [path for path in (kitchen.home / ".local/share/glyphpress/reader").iterdir() if path.is_dir()]
    assert {path.resolve().name for path in versions} == {facts["current"], facts["previous"]}


def test_other_answers_there_leave_the_version_before(
    glyphpress, kitchen: LocalBoard, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert glyphpress("deploy", models / INT8, kitchen.word, "--no-service").code == 0
    honest = deploy.snippet
    monkeypatch.setattr(deploy, "snippet", lambda artifact: honest(artifact).replace(".swapaxes(1, 2)", ""))
    failed = glyphpress("deploy", models / FLOAT, kitchen.word, "--no-service")
    assert failed.code == 3
    assert f"{FLOAT} answers " in failed.err
    assert "of 50 pictures there as here; it was not switched to" in failed.err
    assert running(kitchen) == INT8


def test_a_sidecar_that_names_another_turn_is_doubted(glyphpress, kitchen: LocalBoard, models: Path) -> None:
    right = glyphpress("deploy", models / FLOAT, kitchen.word, "--no-service")
    assert (right.code, "pictures of builtin:digits" in right.err) == (0, False), right.err
    sidecar = models / f"{FLOAT}.json"
    sidecar.write_text(sidecar.read_text().replace('"transpose"', '"rot90"'))
    done = glyphpress("deploy", models / FLOAT, kitchen.word, "--no-service")
    assert done.code == 0
    assert "of 50 pictures of builtin:digits/test right, there as here; if it should read them" in done.err
    sidecar.unlink()
    for words in (("deploy", models / FLOAT, kitchen.word), ("snippet", models / FLOAT)):
        alone = glyphpress(*words, "--data", "builtin:digits") if words[0] == "deploy" else glyphpress(*words)
        assert alone.code == 3
        assert f"say it once with `glyphpress adopt {models / FLOAT} --data DATA`" in alone.err
        assert "add --data" not in alone.err, "that would not be read for it"


def test_a_service_that_does_not_answer_leaves_the_version_before(
    glyphpress, kitchen: LocalBoard, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = tmp_path / "versions.py"
    impatient.write_text(deployment.VERSIONS.read_text().replace("START_S = 60", "START_S = 2"))
    monkeypatch.setattr(deployment, "VERSIONS", impatient)
    assert glyphpress("deploy", models / INT8, kitchen.word, "--no-service").code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failed = glyphpress("deploy", models / FLOAT, kitchen.word, "--port", taken.getsockname()[1])
    assert failed.code == 3
    assert "its service does not answer on port" in failed.err
    assert "the version before runs again" in failed.err
    assert running(kitchen) == INT8


def test_after_a_rollback_the_same_command_goes_forward(glyphpress, kitchen: LocalBoard, models: Path) -> None:
    words = (kitchen.word, "--name", "door", "--no-service")
    for file in (INT8, FLOAT):
        done = glyphpress("deploy", models / file, *words)
        assert done.code == 0, done.err
    command = f"glyphpress deploy {kitchen.word} --rollback --name door --no-service"
    assert f"go back:              {command}\n" in done.out
    back = glyphpress(*command.split()[1:])
    assert (back.code, running(kitchen, "door")) == (0, INT8)
    assert f"the other version:    {command}\n" in back.out
    assert glyphpress(*command.split()[1:]).code == 0
    assert running(kitchen, "door") == FLOAT


def test_a_board_without_systemd_says_how_to_start_it(glyphpress, kitchen: LocalBoard, models: Path) -> None:
    (kitchen.home / "bin/systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    done = glyphpress("deploy", models / INT8, kitchen.word)
    assert done.code == 0
    assert "no service was started (Failed to connect to bus); start it by `" in done.err
    assert "current/run --serve 8765`" in done.err


def test_a_service_that_was_started_by_hand_is_named(glyphpress, kitchen: LocalBoard, models: Path) -> None:
    (kitchen.home / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    port = free_port()
    words = (kitchen.word, "--port", port)
    assert glyphpress("deploy", models / FLOAT, *words).code == 0
    by_hand = f"exec {kitchen.home}/.local/share/glyphpress/reader/current/run --serve {port}"
    with subprocess.Popen([*kitchen.ssh.split(), by_hand]) as server:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                asked(port)
                break
            except OSError:
                time.sleep(0.1)
        done = glyphpress("deploy", models / INT8, *words)
        server.terminate()
    assert done.code == 0
    assert f"what was started on port {port} before still answers, with {FLOAT}; stop it first" in done.err


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["{model}", "ssh://pi@kitchen", "--name", "../up"], 2, "no name of a service; take up to 32 of a to z"),
        (["{model}", "kitchen"], 2, "kitchen: a model is deployed to a board, such as ssh://pi@kitchen"),
        (["{model}"], 2, "give a FILE and a BOARD"),
        (["{model}", "ssh://pi@kitchen", "--rollback"], 2, "--rollback takes the BOARD alone"),
        (["ssh://pi@kitchen", "--rollback"], 3, "kitchen: there is no version before this one; nothing was changed\n"),
        (["{folder}/none.onnx", "ssh://pi@kitchen"], 3, "none.onnx"),
    ],
)
def test_what_cannot_be_deployed_is_one_line(
    glyphpress, kitchen: LocalBoard, models: Path, words: list[str], code: int, reason: str
) -> None:
    done = glyphpress("deploy", *(word.format(model=models / INT8, folder=models) for word in words))
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    assert reason in done.err


def test_a_board_that_was_not_set_up_says_how(
    glyphpress, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = local_board(tmp_path / "new")
    monkeypatch.setenv("GLYPHPRESS_SSH", board.ssh)
    done = glyphpress("deploy", models / INT8, board.word)
    assert done.code == 4
    assert "not set up for this version; run `glyphpress targets setup ssh://pi@kitchen`" in done.err
