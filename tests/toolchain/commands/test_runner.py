"""The program that `glyphpress deploy` puts beside a model on a board, as a user there runs it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibration.load import load
from tests.fixtures.digit_files import digit_files
from toolchain.commands.deploy import program
from toolchain.evaluation.untracked import open_artifact

MODEL = "digits.static-int8.tflite"


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a version as a board has it."""
    folder = tmp_path_factory.mktemp("models")
    digit_files(folder)
    there = tmp_path_factory.mktemp("version")
    for name, content in program(open_artifact(folder / MODEL, None)).items():
        (there / name).write_bytes(content)
    (there / "bin").mkdir()
    (there / "bin/python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("run", "bin/python3"):
        (there / name).chmod(0o755)
    ink = load("builtin:digits", "test").images[3]
    Image.fromarray(255 - ink).resize((90, 90)).save(there / "scan.png")
    return there


def environ(version: Path) -> dict[str, str]:
    """Return what a board's shell has."""
    return {"PATH": f"{version}/bin:/usr/bin:/bin"}


def ran(version: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `run` there."""
    command = [str(version / "run"), *words]
    return subprocess.run(command, env=environ(version), capture_output=True, text=True, check=False, timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens on a port."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)


@dataclass(frozen=True)
class Service:
    """A running `run --serve`. log: its standard error, a file."""

    port: int
    log: Path

    def answer(self, method: str, content: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of an answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        client.request(method, "/", content, {name.replace("_", "-"): word for name, word in headers.items()})
        got = client.getresponse()
        return got.status, json.loads(got.read())


@pytest.fixture(scope="module")
def service(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    there = Service(free_port(), tmp_path_factory.mktemp("log") / "log")
    command = [str(version / "run"), "--serve", str(there.port)]
    with there.log.open("w") as log, subprocess.Popen(command, env=environ(version), stderr=log) as server:
        wait_for(there.port)
        yield there
        server.terminate()


def test_a_picture_is_one_line_and_the_runtime_says_nothing(version: Path) -> None:
    done = ran(version, str(version / "scan.png"))
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


@pytest.mark.parametrize("words", [[], ["--serve"], ["--serve", "1", "2"], ["--port", "8765"]])
def test_wrong_words_are_answered_with_how_it_is_called(version: Path, words: list[str]) -> None:
    done = ran(version, *words)
    run = version / "run"
    assert (done.returncode, done.stderr) == (1, f"usage: {run} PICTURE...\n       {run} --serve PORT\n")


def test_help_says_what_it_does(version: Path) -> None:
    done = ran(version, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "run --serve PORT" in done.stdout


@pytest.mark.parametrize("word", ["abc", "0", "70000", "-1", "8765x"])
def test_a_port_that_is_none_is_one_line(version: Path, word: str) -> None:
    done = ran(version, "--serve", word)
    assert (done.returncode, done.stderr) == (
        1,
        f"--serve {word}: give a port from 1 to 65535, such as 8765\n",
    )


def test_a_port_that_is_taken_is_one_line(version: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ran(version, "--serve", str(port))
    expected = f"port {port} is taken; stop the program that has it, or give another port\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.png", None, "No such file or directory"),
        ("text.png", b"no picture", "it is no picture"),
        ("cut.png", b"", "image file is truncated"),
        ("huge.png", b"", "Image size (196000000 pixels) exceeds limit"),
        ("blank.png", b"", "there is no ink in it"),
    ],
)
def test_a_picture_that_cannot_be_read_is_one_line(
    version: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    elif name == "cut.png":
        path.write_bytes((version / "scan.png").read_bytes()[:400])
    elif name == "huge.png":
        Image.new("1", (14000, 14000)).save(path)
    elif name == "blank.png":
        Image.new("L", (40, 40), 200).save(path)
    done = ran(version, str(path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"{path}: {reason}")


def test_a_model_that_is_gone_is_one_line(version: Path) -> None:
    (version / MODEL).rename(version / "elsewhere")
    try:
        done = ran(version, str(version / "scan.png"))
    finally:
        (version / "elsewhere").rename(version / MODEL)
    expected = f"{version / MODEL} is missing; keep the model file beside this program\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize(
    ("content", "headers", "code", "reason"),
    [
        (b"", {}, 400, "no picture came: the body is empty"),
        (iter([b"chunk"]), {}, 411, "no picture came: send it whole, with its Content-Length"),
        (b"abc", {"Content_Length": "abc"}, 400, "Content-Length is not a number of bytes"),
        (b"abc", {"Content_Length": "-3"}, 400, "Content-Length is not a number of bytes"),
        (b"abc", {"Content_Length": "9" * 5000}, 413, "send a picture of at most 33,554,432 bytes"),
        (b"abc", {"Content_Length": "40000000"}, 413, "send a picture of at most 33,554,432 bytes"),
        (b"no picture", {}, 400, "it is no picture"),
    ],
)
def test_the_service_says_what_it_cannot_read(
    service: Service, content: Any, headers: dict[str, str], code: int, reason: str
) -> None:
    assert service.answer("POST", content, **headers) == (code, {"error": reason})
    assert "Traceback" not in service.log.read_text()


def test_a_client_that_is_slow_or_leaves_keeps_no_other_waiting(service: Service, version: Path) -> None:
    picture = (version / "scan.png").read_bytes()
    half = b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture[:100]
    with socket.create_connection(("127.0.0.1", service.port)) as slow:
        slow.sendall(half)
        start = time.monotonic()
        code, answer = service.answer("POST", picture)
        assert (code, len(answer["best"])) == (200, 3)
        assert time.monotonic() - start < 8, "less than the slow client may be silent"
        slow.shutdown(socket.SHUT_WR)
        assert f"100 of {len(picture):,} bytes came".encode() in slow.makefile("rb").read()
    assert service.answer("POST", picture) == (code, answer)
    assert "Traceback" not in service.log.read_text()


def test_clients_at_the_same_time_get_the_answers_of_their_own_pictures(service: Service, tmp_path: Path) -> None:
    contents = []
    for index, ink in enumerate(load("builtin:digits", "test").images[:12]):
        Image.fromarray(np.pad(ink, 6)).save(tmp_path / f"{index}.png")
        contents.append((tmp_path / f"{index}.png").read_bytes())
    one_by_one = [service.answer("POST", content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda content: service.answer("POST", content), contents)) == one_by_one


def test_a_service_whose_terminal_was_closed_still_answers(version: Path) -> None:
    there = Service(free_port(), Path(os.devnull))
    command = [str(version / "run"), "--serve", str(there.port)]
    with subprocess.Popen(command, env=environ(version), stderr=subprocess.PIPE) as server:
        try:
            wait_for(there.port)
            assert server.stderr
            server.stderr.close()
            answers = [there.answer("GET") for _ in range(2)]
        finally:
            server.terminate()
    assert [answer["model"] for _, answer in answers] == [MODEL, MODEL]
