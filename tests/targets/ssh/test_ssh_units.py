"""What of the ssh target needs no server: addresses, what a board is given, Python 3.9, and what errors mean."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets import agent
from targets import ssh as ssh_target
from targets.agent import RemoteSession, local_agent
from targets.agent.serve import Agent
from targets.artifact import Artifact
from targets.errors import RunFailed, TargetUnavailable, UnknownTarget
from targets.ssh.bundle import BELOW, MODULES, Address, BoardFacts, SetUp, agent_layer, ssh, ssh_error, wheels_layer

TARGETS = Path(__file__).resolve().parents[3] / "targets"
THERE = [TARGETS / f"{module}.py" for module in MODULES]
THERE += [TARGETS / "ssh/bootstrap.py", TARGETS / "ssh/versions.py"]
THERE += [TARGETS.parent / f"{module}.py" for module in BELOW]
NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(NAME | st.just("fe80::1"), st.just("") | NAME, st.integers(0, 65535))
def test_an_address_is_read_as_it_is_written(host: str, user: str, port: int) -> None:
    address = Address(host, user, port)
    assert Address.parse(str(address).removeprefix("ssh:")) == address


@pytest.mark.parametrize(
    "rest",
    ["", "//", "kitchen", "//-oProxyCommand=x", "//a b", "//pi@", "//pi@kitchen:0", "//h:70000", "//h/x", "//$(x)"],
)
def test_what_is_no_address_never_reaches_ssh(rest: str) -> None:
    with pytest.raises(UnknownTarget, match=r"give ssh://\[USER@\]HOST"):
        Address.parse(rest)


def test_host_checking_and_passwords_are_left_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLYPHPRESS_SSH", "ssh -F 'my config'")
    arguments = ssh(Address("kitchen", "pi", 2222), "true")
    assert arguments[:3] == ["ssh", "-F", "my config"]
    assert arguments[-3:] == ["--", "pi@kitchen", "true"]
    assert "BatchMode=yes" in arguments
    assert not [word for word in arguments if "HostKeyChecking" in word or "KnownHosts" in word]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("pi@kitchen: Permission denied (publickey).", "add one with `ssh-copy-id -p 22 pi@kitchen`"),
        ("No ED25519 host key is known for kitchen\nHost key verification failed.", "its host key is not known"),
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "its host key has changed",
        ),
        ("ssh: Could not resolve hostname kitchen: Name or service not known", "no such host"),
        ("ssh: connect to host kitchen port 22: Connection refused", "no ssh server answers"),
        (
            "ssh: connect to host kitchen port 22: Connection timed out",
            "check that it is on and connected to this network",
        ),
        ("sh: 1: python3: not found", "apt-get install python3"),
        ("/home/pi/.cache/glyphpress: No space left on device", "its disk is full"),
        ("/home/pi/.cache/glyphpress: Permission denied", "its home cannot be written"),
    ],
)
def test_what_ssh_says_becomes_one_line_with_the_fix(said: str, told: str) -> None:
    error = ssh_error(Address("kitchen", "pi", 22), said)
    assert isinstance(error, TargetUnavailable)
    assert told in str(error)
    assert str(error).startswith("ssh://pi@kitchen:22: ")
    assert "\n" not in str(error)


def test_what_our_own_program_refuses_there_says_all_that_there_is_to_do() -> None:
    error = ssh_error(Address("kitchen"), "banner\nrefused: there is no version before this one; nothing was changed")
    assert isinstance(error, RunFailed)
    assert str(error) == "ssh://kitchen: there is no version before this one; nothing was changed"


def test_what_nobody_knows_is_quoted() -> None:
    error = ssh_error(Address("kitchen"), "banner\nsomething else entirely")
    assert isinstance(error, RunFailed)
    assert "something else entirely; try `ssh kitchen` by hand" in str(error)


def test_a_connection_that_ends_before_the_agent_greets_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_target, "installed_layers", lambda _address: ("/home/pi", ["agent", "wheels"]))
    monkeypatch.setattr(ssh_target, "ssh", lambda *_words: ["sh", "-c", "echo Connection closed by kitchen >&2"])
    with pytest.raises(RunFailed) as caught:
        ssh_target.Board(Address("kitchen")).channel()
    assert str(caught.value) == "ssh://kitchen: Connection closed by kitchen; try `ssh kitchen` by hand"


def test_the_agent_runs_from_what_a_board_is_given_and_nothing_else(tmp_path: Path) -> None:
    layer = agent_layer()
    subprocess.run(["tar", "-xzf", str(layer.archive), "-C", str(tmp_path)], check=True)
    program = (
        "import sys, targets.agent.serve, targets.onnxruntime.cpu, targets.litert.cpu\n"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.startswith(('targets', 'glyphpress'))}, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {Path(line) for line in done.stdout.split()} == set(tmp_path.rglob("*.py"))


def test_the_same_modules_are_the_same_layer() -> None:
    first, second = agent_layer(), agent_layer()
    assert (first.name, first.sha256) == (second.name, second.sha256)
    assert first.name.startswith("agent-")


@pytest.mark.parametrize("architecture", ["armv7l", "armv6l", "32 bits on aarch64"])
def test_a_board_without_wheels_is_told_so(architecture: str) -> None:
    with pytest.raises(TargetUnavailable, match=f"no wheels for {architecture}.*64-bit system"):
        wheels_layer("3.11", architecture)


@pytest.mark.parametrize("path", THERE, ids=lambda path: path.stem)
def test_what_runs_there_is_python_3_9(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    annotations = {id(node) for outer in ast.walk(tree) for node in _annotated(outer)}
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match), "match came with 3.10"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and not (future and id(node) in annotations):
            names = {side.id for side in (node.left, node.right) if isinstance(side, ast.Name)}
            assert not names & {"int", "str", "float", "bool", "None"}, (
                f"line {node.lineno}: a union outside annotations"
            )
        if isinstance(node, ast.keyword):
            assert node.arg not in ("strict", "slots", "kw_only"), f"{node.arg}= came with 3.10"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
            assert not names & {"tomllib", "StrEnum", "pairwise", "Self", "override", "TypeAlias", "ParamSpec"}


def _annotated(node: ast.AST) -> list[ast.AST]:
    """Return all nodes inside the annotations of a definition."""
    annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
    return [inner for annotation in annotations if isinstance(annotation, ast.AST) for inner in ast.walk(annotation)]


def test_a_request_that_takes_too_long_is_ended_there(onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    from targets.session import TimingPlan

    monkeypatch.setattr(agent, "LIMIT_S", 1)
    channel = local_agent("board")
    session = RemoteSession(channel, onnx_artifact, path=str(onnx_artifact.path), runtime="ort-cpu")
    with pytest.raises(RunFailed, match=r"board: it took longer there than it may \(1 s\)"):
        session.time(TimingPlan(min_seconds=60, max_runs=10**9))
    with pytest.raises(ProcessLookupError):
        os.kill(channel._process.pid, 0)


def test_row42_what_was_pushed_never_rounds_to_nothing() -> None:
    facts = BoardFacts("3.11", "aarch64", "/home/pi", [])
    done = SetUp("pi@kitchen", facts, (), {"agent": 41_300, "wheels": 53_000_000})
    assert done.lines() == ["pi@kitchen: agent, 41 KB", "pi@kitchen: wheels, 53 MB"]


def aged(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def test_row34_a_push_sweeps_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "glyphpress"
    (home / ".part-wheels-old").mkdir(parents=True)
    (home / ".part-wheels-old" / "half.py").touch()
    (home / "wheels-whole").mkdir()
    for name in (".part-agent-old.tar.gz", ".part-agent-now.tar.gz"):
        (home / name).touch()
    for path in (home / ".part-wheels-old", home / ".part-agent-old.tar.gz", home / "wheels-whole"):
        aged(path)
    layer = agent_layer()
    command = [sys.executable, str(TARGETS / "ssh/bootstrap.py"), "take", layer.name, layer.sha256]
    with layer.archive.open("rb") as archive:
        settings = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(command, stdin=archive, env=settings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in home.iterdir()} == {layer.name, "wheels-whole", ".part-agent-now.tar.gz"}


def test_row34_an_agent_sweeps_what_killed_ones_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLYPHPRESS_HOME", str(tmp_path))
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / ".part-old.onnx").touch()
    (folder / ".part-now.onnx").touch()
    aged(folder / ".part-old.onnx")
    content = b"a model"
    digest = hashlib.sha256(content).hexdigest()
    Agent().put(content, file=f"{digest}.onnx", sha256=digest)
    assert {path.name for path in folder.iterdir()} == {".part-now.onnx", f"{digest}.onnx"}
