"""Boards over ssh, end to end: a real OpenSSH server whose shell is an emulated Raspberry Pi (`board`)."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibration.load import load
from targets import catalog
from targets import ssh as ssh_target
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, TargetUnavailable
from targets.metadata import save_sidecar
from targets.session import TimingPlan
from targets.ssh import bootstrap
from targets.ssh.bundle import Address, set_up, shell_on_board
from tests.fixtures.board import Board, board, needs
from tests.fixtures.digit_files import digit_files
from tests.fixtures.digit_pages import check_read_alike
from tests.fixtures.small_models import glyphs
from toolchain.commands.profile import ProfileRequest, profile_files
from toolchain.core.context import silent

pytestmark = pytest.mark.slow
SHORT = TimingPlan(warmup=1, min_runs=10, min_seconds=0, max_runs=20)


def fresh(word: str) -> ssh_target.SshTarget:
    """Return a target that shares no connection with others."""
    if word in ssh_target._BOARDS:
        ssh_target._BOARDS.pop(word).close()
    target = catalog.get(word)
    assert isinstance(target, ssh_target.SshTarget)
    return target


def test_set_up_again_pushes_nothing_and_one_folder_is_all_there_is(reached: Board) -> None:
    second = set_up(reached.word, progress=silent)
    assert (second.pushed, second.lines()) == ({}, [])
    assert (second.facts.architecture, second.facts.home) == ("aarch64", "/root/.cache/glyphpress")
    folders = {path.name for path in (reached.home / ".cache/glyphpress").iterdir()}
    assert set(second.folders) <= folders
    assert not [name for name in folders if "part" in name]


def test_answers_there_are_the_answers_here(reached: Board, onnx_artifact: Artifact, int8_artifact: Artifact) -> None:
    images = glyphs(40)
    for artifact, tolerance in ((onnx_artifact, 1e-4), (int8_artifact, 0.0)):
        with (
            catalog.get(reached.word).open(artifact) as remote,
            catalog.default_for(artifact.format).open(artifact) as local,
        ):
            np.testing.assert_allclose(remote.run(images), local.run(images), rtol=0, atol=tolerance)
            assert remote.facts.target == reached.word
            assert remote.facts.device.startswith("Raspberry Pi 4")


def test_an_artifact_is_pushed_once_by_its_digest(reached: Board, onnx_artifact: Artifact) -> None:
    with catalog.get(reached.word).open(onnx_artifact):
        pass
    stored = reached.home / f".cache/glyphpress/artifacts/{onnx_artifact.sha256}.onnx"
    before = stored.stat()
    assert stored.read_bytes() == onnx_artifact.path.read_bytes()
    with fresh(reached.word).open(onnx_artifact):
        pass
    assert stored.stat().st_mtime_ns == before.st_mtime_ns


def test_times_are_taken_there_and_come_back_raw(reached: Board, onnx_artifact: Artifact) -> None:
    with catalog.get(reached.word).open(onnx_artifact) as session:
        timings = session.time(SHORT)
    assert timings.samples_ns.dtype == np.int64
    assert 10 <= len(timings.samples_ns) <= 20
    assert timings.machine["architecture"] == "aarch64"
    cold = fresh(reached.word).cold_start(onnx_artifact)
    assert min(cold.load_ns, cold.first_run_ns) > 0
    assert "asimd" in fresh(reached.word).isa()


def test_a_run_outlives_a_connection_that_is_cut_in_the_middle(
    reached: Board, onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, asked = glyphs(1000), []
    target = fresh(reached.word)
    with target.open(onnx_artifact) as remote, catalog.default_for("onnx").open(onnx_artifact) as local:
        channel = ssh_target.board(target.address).channel()
        first, request = reached.running(), channel.request

        def cut_at_the_second(name: str, *payload: bytes, **words: Any) -> Any:
            asked.append(name)
            if len(asked) == 2:
                reached.cut()
            return request(name, *payload, **words)

        monkeypatch.setattr(channel, "request", cut_at_the_second)
        np.testing.assert_allclose(remote.run(images), local.run(images), rtol=0, atol=1e-4)
        assert asked == ["run", "run"], "the others go by the new connection"
        assert first
        assert not set(first) & set(reached.running()), "what ran before the cut is gone"


def test_cores_are_kept_to_after_a_cut_too(reached: Board, onnx_artifact: Artifact) -> None:
    target = fresh(reached.word)
    with pytest.raises(RunFailed, match="may use"):
        target.pin([4095])
    target.pin([0])
    reached.cut()
    with target.open(onnx_artifact) as session:
        machine = session.time(SHORT).machine
    fresh(reached.word)
    assert machine["usable_cores"] == 1


def test_a_board_that_stays_away_is_a_clear_error_and_nothing_is_left_running(
    reached: Board, onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_target, "RETRIES_S", (0.1, 0.1))
    session = fresh(reached.word).open(onnx_artifact)
    monkeypatch.setenv("GLYPHPRESS_SSH", f"{reached.ssh} -o ProxyCommand=false")
    reached.cut()
    with pytest.raises(ConnectionLost, match=r"nothing is left running there, run the same command again"):
        session.run(glyphs(10))
    assert reached.emptied()


def test_a_host_that_ends_leaves_nothing_running(reached: Board, onnx_artifact: Artifact) -> None:
    target = fresh(reached.word)
    target.open(onnx_artifact)
    assert reached.running()
    ssh_target.board(target.address).close()
    assert reached.emptied()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("-i {folder}/host -o IdentityFile=none", "no key of yours is accepted; add one with `ssh-copy-id -p "),
        ("-o UserKnownHostsFile=/dev/null", "its host key is not known"),
        ("-o ProxyCommand=false", "by hand"),
    ],
    ids=["wrong key", "unknown host key", "no connection"],
)
def test_why_a_board_cannot_be_reached_is_told_with_the_fix(
    reached: Board, monkeypatch: pytest.MonkeyPatch, option: str, said: str, onnx_artifact: Artifact
) -> None:
    folder = reached.folder
    config = folder / "other_config"
    stored = [
        line
        for line in (folder / "ssh_config").read_text().splitlines()
        if "Identity" not in line or "-i" not in option
    ]
    config.write_text("\n".join(stored) + "\n")
    monkeypatch.setenv("GLYPHPRESS_SSH", f"ssh {option.format(folder=folder)} -F {config}")
    target = fresh(reached.word)
    state = target.probe()
    assert not state.ok
    assert said in f"{state.reason}; {state.fix}"
    with pytest.raises((TargetUnavailable, RunFailed), match=f"^{reached.word}: "):
        target.open(onnx_artifact)
    known = (folder / "known_hosts").read_text().splitlines()
    assert len(known) == 1, "nobody added a key"


def test_a_full_disk_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with board(tmp_path / "full", home="size=2m") as other_board:
        monkeypatch.setenv("GLYPHPRESS_SSH", other_board.ssh)
        with pytest.raises(TargetUnavailable, match="its disk is full; free some space there"):
            set_up(other_board.word, progress=silent)


@pytest.mark.parametrize("size", [100_000, 5_000_000], ids=["packed does not fit", "unpacked does not fit"])
def test_a_full_disk_there_leaves_no_half_folder(size: int, tmp_path: Path) -> None:
    """The board's own script, on a disk that can be looked at before it goes with the connection."""
    needs()
    content = np.random.default_rng(0).bytes(size) if size < 1_000_000 else bytes(size)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("weights")
        entry.size = size
        tar.addfile(entry, io.BytesIO(content))
    (tmp_path / "disk").mkdir()
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    script = f"""mount -t tmpfs -o size=64k none {tmp_path}/disk
        XDG_CACHE_HOME={tmp_path}/disk {sys.executable} {bootstrap.__file__} take layer {digest}; echo $?
        ls -A {tmp_path}/disk/glyphpress"""
    command = ["unshare", "-Urm", "sh", "-c", script]
    done = subprocess.run(command, input=packed.getvalue(), capture_output=True, check=True)
    assert "No space left on device" in done.stderr.decode()
    assert done.stdout.decode().split() == ["1"], "and nothing else is there"


def test_an_old_python_there_is_told(reached: Board) -> None:
    # No such Python can be had here: this one only says that it is.
    answer = '{"python": "3.8.10", "architecture": "aarch64", "home": "/root", "folders": []}'
    script = reached.home / "bin/python3"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho '{answer}'\n")
    script.chmod(0o755)
    try:
        with pytest.raises(TargetUnavailable, match=r"its Python is 3.8.10; the agent needs 3.9 or newer there"):
            set_up(reached.word, progress=silent)
    finally:
        shutil.rmtree(script.parent)


def test_a_board_that_was_not_set_up_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with board(tmp_path / "bare") as other_board:
        monkeypatch.setenv("GLYPHPRESS_SSH", other_board.ssh)
        state = fresh(other_board.word).probe()
    assert state.fix == f"run `glyphpress targets setup {other_board.word}`"


def test_two_boards_are_measured_at_once(
    reached: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact
) -> None:
    with board(tmp_path / "hall") as hall:
        shutil.copytree(reached.home / ".cache", hall.home / ".cache", symlinks=True)
        both = tmp_path / "config"
        for other_board in (reached, hall):
            port = other_board.word.rpartition(":")[2]
            text = (other_board.folder / "ssh_config").read_text()
            with both.open("a") as stream:
                stream.write(f"Host {other_board.folder.name}\nHostName 127.0.0.1\nPort {port}\n{text}")
        monkeypatch.setenv("GLYPHPRESS_SSH", f"ssh -F {both}")
        words = ("ssh://kitchen", "ssh://hall")
        done = profile_files(ProfileRequest((onnx_artifact,), words, plan=SHORT, rounds=2))
        assert [cell.target for cell in done.files] == list(words)
        for cell in done.files:
            assert cell.timings is not None
            assert len(cell.timings.blocks) == 2
            assert cell.agreement is not None
            assert cell.agreement.match
        for word in words:
            ssh_target.board(ssh_target.Address.parse(word.removeprefix("ssh:"))).close()
    assert hall.emptied()
    assert hall.server.poll() is not None


@pytest.mark.parametrize("file", ["digits.static-int8.onnx", "digits.static-int8.tflite"])
def test_a_picture_is_read_there_as_here(
    reached: Board, file: str, glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    check_read_alike(glyphpress, digit_files(tmp_path)[file].path, reached.word, tmp_path, within=0)


def test_a_model_is_deployed_with_all_that_reads_pictures(
    reached: Board, glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    model = digit_files(tmp_path)["digits.static-int8.tflite"].path
    done = glyphpress("deploy", model, reached.word, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["answers"], facts["service"]) == (50, "")
    assert "there is no systemd" in facts["notes"][0]
    picture = reached.home / "scan.png"
    Image.fromarray(255 - load("builtin:digits", "test").images[3]).resize((90, 90)).save(picture)
    run = f"{facts['folder']}/current/run /root/scan.png"
    said = shell_on_board(Address.parse(reached.word.removeprefix("ssh:")), run).decode()
    here = glyphpress("snippet", model, "-o", tmp_path / "read.py")
    assert here.code == 0
    expected = subprocess.run(
        [sys.executable, tmp_path / "read.py", picture], capture_output=True, text=True, check=True
    )
    assert said.split()[1:] == expected.stdout.split()[1:]


def test_the_command_line_evaluates_there(
    reached: Board, onnx_artifact: Artifact, glyphpress: Callable[..., Any], tmp_path: Path
) -> None:
    copy = tmp_path / "net.onnx"
    copy.write_bytes(onnx_artifact.path.read_bytes())
    save_sidecar(replace(onnx_artifact, path=copy))
    saved = {}
    for word in ("ort-cpu", reached.word):
        output = tmp_path / f"{len(saved)}.npz"
        done = glyphpress("evaluate", copy, "--data", "builtin:digits", "--target", word, "-o", output, "--json")
        assert done.code == 0, done.err
        saved[word] = output
    compared = glyphpress("compare", saved["ort-cpu"], saved[reached.word])
    assert compared.code == 0, compared.err
    started = time.monotonic()
    assert glyphpress("targets", "setup", reached.word).out.strip().endswith("nothing to do, everything is there")
    assert time.monotonic() - started < 20
