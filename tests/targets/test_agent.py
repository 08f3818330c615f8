"""The agent in a fresh process of this machine: the same answers, errors that keep their kind, nothing left running."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.agent import GREETING, BrokenWire, Channel, RemoteSession, local_agent, read_greeting, receive, send
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, UnknownTarget
from targets.onnxruntime.cpu import OrtCpu
from targets.session import TimingPlan
from tests.fixtures.small_models import glyphs


@pytest.fixture(scope="module")
def agent() -> Iterator[Channel]:
    channel = local_agent()
    yield channel
    channel.close()


def opened(agent: Channel, artifact: Artifact, runtime: str = "ort-cpu") -> RemoteSession:
    return RemoteSession(agent, artifact, path=str(artifact.path), runtime=runtime)


def test_answers_there_are_the_answers_here(agent: Channel, onnx_artifact: Artifact) -> None:
    images = glyphs(300)
    with opened(agent, onnx_artifact) as remote, OrtCpu().open(onnx_artifact) as local:
        assert np.array_equal(remote.run(images), local.run(images))
        assert remote.facts == replace(local.facts, target="a fresh process")


def test_times_come_back_raw(agent: Channel, onnx_artifact: Artifact) -> None:
    with opened(agent, onnx_artifact) as session:
        timings = session.time(TimingPlan(min_runs=30, min_seconds=0.01))
    assert len(timings.samples_ns) >= 30
    assert timings.samples_ns.min() > 1000
    assert timings.artifact_sha256 == onnx_artifact.sha256


@pytest.mark.parametrize(
    ("runtime", "path", "kind"), [("ort-gpu", "net.onnx", UnknownTarget), ("ort-cpu", "absent.onnx", RunFailed)]
)
def test_errors_there_keep_their_kind_and_line(
    agent: Channel, onnx_artifact: Artifact, runtime: str, path: str, kind: type
) -> None:
    with pytest.raises(kind) as caught:
        RemoteSession(agent, onnx_artifact, path=path, runtime=runtime)
    assert "\n" not in str(caught.value)
    agent.request("hello")


def test_an_agent_that_dies_is_a_lost_connection(onnx_artifact: Artifact) -> None:
    channel = local_agent("somewhere")
    session = opened(channel, onnx_artifact)
    channel._process.kill()
    with pytest.raises(ConnectionLost, match=r"somewhere: .*run the same command again"):
        session.run(glyphs(2000))


def test_a_host_that_hangs_up_leaves_nothing_running(onnx_artifact: Artifact) -> None:
    channel = local_agent()
    pid = channel._process.pid
    session = opened(channel, onnx_artifact)
    send(channel._sink, {"request": "time", "session": session._session, "plan": {"min_seconds": 600.0}})
    time.sleep(0.5)
    channel.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_request_that_is_interrupted_ends_at_once_and_leaves_nothing_running(onnx_artifact: Artifact) -> None:
    channel, before = local_agent(), signal.signal(signal.SIGUSR1, signal.default_int_handler)
    pid = channel._process.pid
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), opened(channel, onnx_artifact) as session:
            session.time(TimingPlan(min_seconds=100, max_runs=10**9))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - started < 60
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), st.binary(max_size=3000))
def test_a_frame_is_read_as_it_was_sent(header: dict[str, object], payload: bytes) -> None:
    stream = io.BytesIO()
    send(stream, header, payload)
    stream.seek(0)
    assert receive(stream) == (header, payload)


@given(st.binary(max_size=200), st.integers(0, 199))
def test_a_frame_that_was_cut_is_a_broken_wire(payload: bytes, cut: int) -> None:
    stream = io.BytesIO()
    send(stream, {"request": "run"}, payload)
    short = io.BytesIO(stream.getvalue()[: min(cut, len(stream.getvalue()) - 1)])
    with pytest.raises(BrokenWire):
        receive(short)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_row35_a_number_that_is_not_finite_is_a_broken_wire(number: str) -> None:
    header = f'{{"session": {number}}}'.encode()
    with pytest.raises(BrokenWire, match="does not follow this protocol"):
        receive(io.BytesIO(struct.pack(">IQ", len(header), 0) + header))


def test_what_a_shell_says_first_is_skipped_and_told_when_nothing_follows() -> None:
    read_greeting(io.BytesIO(b"Welcome to Debian\n" + GREETING))
    with pytest.raises(BrokenWire, match="python3: not found"):
        read_greeting(io.BytesIO(b"sh: python3: not found\n"))


def test_a_command_that_is_no_agent_says_why() -> None:
    with pytest.raises(ConnectionLost, match=r"board: .*no such module"):
        Channel(["sh", "-c", "echo no such module >&2; exit 1"], "board")


def test_the_agent_needs_nothing_but_numpy_and_the_runtime(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys, targets.agent.serve\n"
        "loaded = {name.split('.')[0] for name, module in sys.modules.items() if module}\n"
        "print(loaded - set(sys.stdlib_module_names) - {'__main__'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert eval(done.stdout) - {name for name in eval(done.stdout) if name.startswith("_")} == {
        *("targets", "numpy", "glyphpress"),
    }
