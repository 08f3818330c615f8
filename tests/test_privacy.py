"""Nothing that was not asked for leaves the machine or is written where nobody asked for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.system_calls import require_strace, watch

ROOT = Path(__file__).resolve().parents[1]

SESSION = """
import numpy as np
from onnx import TensorProto, helper
model = helper.make_model(
    helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=8,
)
import onnxruntime
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {"x": np.array([-1.0], dtype=np.float32)})[0] == 0
"""
OPENVINO = """
import openvino
import sys
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""

PLACES = ("HOME", "XDG_CACHE_HOME", "TMPDIR")


def apart(folder: Path) -> dict[str, str]:
    """Return the environment of a program whose places are new folders in `folder`."""
    for place in PLACES:
        (folder / place).mkdir()
    changed = ("ORT_DISABLE_TELEMETRY", "CI", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in changed}
    places = {name: str(folder / name) for name in PLACES}
    # Python may keep compiled modules beside the installed ones, which says nothing of the program.
    return environment | places | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("first", ["toolchain", "targets", "targets.agent.serve", "toolchain.checkpoint.onnx_graph"])
@pytest.mark.parametrize("program", [SESSION, OPENVINO], ids=["row29-onnxruntime", "row29-openvino"])
def test_no_runtime_reports_its_use(program: str, first: str, tmp_path: Path) -> None:
    environment = apart(tmp_path)
    command = [sys.executable, "-c", f"import {first}\n{program}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.name not in PLACES]
    assert left == []


PLANTED = """
import os, socket
open("cwd/file", "w").close()
os.mkdir("cwd/folder")
os.rename("cwd/file", "cwd/folder/renamed")
os.symlink("/target", "cwd/symlink")
os.link("cwd/folder/renamed", "cwd/link")
os.unlink("cwd/link")
folder = os.open("cwd/folder", os.O_RDONLY)
os.open("below", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
if os.fork() == 0:
    open("cwd/of a child", "w").close()
    os._exit(0)
os.wait()
for make in (lambda: open("absent/file", "w"), lambda: open("cwd/absent")):
    try: make()
    except OSError: pass
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
for family, address in ((socket.AF_INET6, ("::1", 9)), (socket.AF_UNIX, "absent")):
    try: socket.socket(family).connect(address)
    except OSError: pass
"""


def test_the_watch_sees_what_is_written_and_sent(tmp_path: Path) -> None:
    require_strace()
    environment = apart(tmp_path)
    (tmp_path / "cwd").mkdir()
    seen = watch([sys.executable, "-c", PLANTED], tmp_path / "log", tmp_path, environment, timeout=60)
    assert seen.code == 0, seen.err
    names = {"file", "folder", "folder/renamed", "symlink", "link", "folder/below", "of a child"}
    assert seen.written == {str(tmp_path / "cwd" / name) for name in names}
    assert [re.findall(r"^\w+|AF_\w+|127.0.0.1|::1", call)[:3] for call in sorted(seen.network)] == [
        ["connect", "AF_INET6", "AF_INET6"],
        ["sendto", "AF_INET", "127.0.0.1"],
    ]


# Python's semaphores and names of threads are no files of a disk.
ALLOWED = (
    r"cwd/(out|\.glyphpress-)\b.*",
    r"(TMPDIR|XDG_CACHE_HOME)(/.*)?",
    r"/dev/(null|shm/sem\..*)",
    r"/proc/.*/comm",
)


DEMO = """
from toolchain.cli.main import main
from toolchain.profiling import latency
latency._disturbed = lambda _: False
main()
"""
"""The demo. Nothing is timed once more since the suite's other process is at work."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_part1_the_demo_writes_to_three_places_and_calls_nobody(tmp_path: Path) -> None:
    require_strace()
    environment = apart(tmp_path)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    command = [sys.executable, "-c", DEMO, "demo", "--out", "out"]
    seen = watch(command, tmp_path / "log", cwd, environment, timeout=1100)
    assert seen.code == 0, seen.err
    allowed = re.compile("|".join(ALLOWED))
    written = {path.removeprefix(f"{tmp_path}/") for path in seen.written}
    assert {path for path in written if not allowed.fullmatch(path)} == set()
    assert seen.network == ()
    # The watch saw the run, and nothing but results and the converters' log stays.
    assert "cwd/out" in written
    kept = [path.relative_to(tmp_path) for name in (*PLACES, "cwd") for path in (tmp_path / name).glob("*")]
    assert kept == [Path("XDG_CACHE_HOME/glyphpress"), Path("cwd/out")]
    assert [path.name for path in (tmp_path / kept[0]).iterdir()] == ["log"]
