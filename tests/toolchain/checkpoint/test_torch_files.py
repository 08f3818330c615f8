"""Files of torch: what could do more than compute is refused before it is loaded; a file may be cut short meanwhile."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import Finished
from tests.fixtures import hostile_checkpoints as harmful
from tests.fixtures.lazy import blocks, torch
from toolchain.checkpoint.torch_files import private_copy, read_program, read_torchscript, read_weights
from toolchain.core.errors import CheckpointError

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ordinary program.pt2 and script.pt."""
    folder = tmp_path_factory.mktemp("ordinary")
    harmful.program(folder / "program.pt2")
    harmful.script(folder / "script.pt")
    return folder


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that appears when something ran; modules beside it can be imported, as from a working folder."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "mark"


def test_row27_an_unchecked_program_runs_code(ordinary: Path, mark: Path, tmp_path: Path) -> None:
    # If torch ran none of this, the refusals below would show nothing.
    ran = set()
    for name, change in harmful.PROGRAMS.items():
        path = harmful.changed(ordinary / "program.pt2", change, mark, tmp_path / f"{name}.pt2")
        with suppress(Exception):  # most programs fail after their code has run
            read_program(path, trusted=True)[0].module()(torch.zeros(2, 1, 28, 28))
        if mark.exists():
            ran.add(name)
            mark.unlink()
    assert ran >= {"opaque-object", "sample-inputs", "size", "size-of-allowed-characters", "name", "tree"}


@pytest.mark.parametrize("command", ["inspect", "export", "press", "prune"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("program.pt2", harmful.PROGRAMS["pickled-weights"], id="row27-pickled-weights"),
        pytest.param("program.pt2", harmful.PROGRAMS["size"], id="row27-size"),
        pytest.param("program.pt2", harmful.PROGRAMS["opaque-object"], id="row27-opaque-object"),
        pytest.param("script.pt", harmful.SCRIPTS["default-of-an-argument"], id="row28-default-of-an-argument"),
    ],
)
def test_every_command_refuses(
    name: str, change: Any, command: str, ordinary: Path, mark: Path, tmp_path: Path, glyphpress: Run
) -> None:
    path = harmful.changed(ordinary / name, change, mark, tmp_path / f"m{Path(name).suffix}")
    options: list[Any] = {
        "inspect": [],
        "export": ["--classes", "0123456789", "-o", tmp_path / "m.onnx"],
        "press": ["--data", "builtin:digits", "--out", tmp_path / "out"],
        "prune": ["--data", "builtin:digits", "--ratio", "10%", "-o", tmp_path / "p.pt2"],
    }[command]
    done = glyphpress(command, path, *options)
    assert done.code == 3, done.err
    assert "give --trust-pickle" in done.err
    assert not mark.exists()


@pytest.mark.parametrize("way", harmful.PROGRAMS, ids=lambda way: f"row27-{way}")
def test_programs_that_could_run_code_are_refused(way: str, ordinary: Path, mark: Path, tmp_path: Path) -> None:
    path = harmful.changed(ordinary / "program.pt2", harmful.PROGRAMS[way], mark, tmp_path / "any.name")
    with pytest.raises(CheckpointError, match="--trust-pickle"):
        read_program(path)
    assert not mark.exists()


def test_row11_a_layer_with_a_slash_in_its_name_is_no_harm(tmp_path: Path) -> None:
    net = torch.nn.Sequential()
    net.add_module("c1/Conv", torch.nn.Conv2d(1, 4, 3))
    images = torch.zeros(2, 1, 28, 28)
    torch.export.save(torch.export.export(net, (images,)), tmp_path / "net.pt2")
    assert read_program(tmp_path / "net.pt2", trusted=False)[0].module()(images).shape == (2, 4, 26, 26)


def test_row27_guards_are_taken_off(ordinary: Path, mark: Path, tmp_path: Path) -> None:
    path = harmful.changed(ordinary / "program.pt2", harmful.guards, mark, tmp_path / "g.pt2")
    program, _ = read_program(path)
    assert program.module()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.onnx", "m.safetensors", "m.tflite"])
def test_row27_a_name_and_what_is_in_the_file_must_agree(
    name: str, ordinary: Path, tmp_path: Path, glyphpress: Run
) -> None:
    (tmp_path / name).write_bytes((ordinary / "program.pt2").read_bytes())
    done = glyphpress("inspect", tmp_path / name)
    assert done.code == 3
    assert "torch.export program; if that is meant, name it m.pt2" in done.err


@pytest.mark.parametrize("size", ["free", "found", "fixed"])
def test_row27_ordinary_programs_are_read_without_trust(size: str, tmp_path: Path) -> None:
    batch = {"free": torch.export.Dim("n", min=1, max=64), "found": torch.export.Dim.AUTO}.get(size)
    net, images = blocks.Cells().eval(), torch.rand(2, 1, 28, 28)
    program = torch.export.export(net, (images,), dynamic_shapes=({0: batch},) if batch else None)
    torch.export.save(program, tmp_path / "cells.pt2", extra_files={"glyphpress": "{}"})
    read, extra = read_program(tmp_path / "cells.pt2")
    assert torch.allclose(read.module()(images), net(images), atol=1e-5)
    assert extra == {"glyphpress": "{}"}
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") is None


@pytest.mark.parametrize("way", harmful.SCRIPTS, ids=lambda way: f"row28-{way}")
def test_torchscript_that_does_more_than_compute_is_refused(
    way: str, ordinary: Path, mark: Path, tmp_path: Path
) -> None:
    path = harmful.changed(ordinary / "script.pt", harmful.SCRIPTS[way], mark, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="--trust-pickle"):
        read_torchscript(path)
    assert not mark.exists()


def test_row28_unchecked_torchscript_runs_code(ordinary: Path, mark: Path, tmp_path: Path) -> None:
    ran = set()
    for name, change in harmful.SCRIPTS.items():
        path = harmful.changed(ordinary / "script.pt", change, mark, tmp_path / f"{name}.pt")
        with suppress(Exception):  # some are no valid code for this torch
            read_torchscript(path, trusted=True)(torch.zeros(2, 1, 28, 28))
        if mark.exists():
            ran.add(name)
            mark.unlink()
    assert ran >= {"forward", "default-of-an-argument", "spelled-name"}


@pytest.mark.parametrize("how", ["script", "trace", "frozen"])
def test_row28_ordinary_torchscript_is_read_without_trust(how: str, tmp_path: Path) -> None:
    net, images = blocks.Cells().eval(), torch.rand(2, 1, 28, 28)
    made = torch.jit.trace(net, images, check_trace=False) if how == "trace" else torch.jit.script(net)
    torch.jit.save(torch.jit.freeze(made) if how == "frozen" else made, str(tmp_path / "cells.pt"))
    assert torch.allclose(read_torchscript(tmp_path / "cells.pt")(images), net(images), atol=1e-5)


NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
"""
LOAD = """
import os, sys

import toolchain.checkpoint.load

load = sys.modules["toolchain.checkpoint.load"]
path, fit_state = sys.argv[1], load.fit_state


def cut_and_fit(*words):
    os.truncate(path, 0)
    return fit_state(*words)


load.fit_state = cut_and_fit
loaded = load.load(path, model="net.py:Net", classes=tuple("0123456789"))
print(float(loaded.model.module[1].weight.sum()))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("cut")
    (folder / "net.py").write_text(NET)
    state = {"1.weight": torch.ones(10, 784), "1.bias": torch.ones(10)}
    torch.save(state, folder / "model.pt")
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("suffix", [pytest.param(suffix, id=f"row56-{suffix}") for suffix in ("pt", "safetensors")])
def test_weights_are_read_though_their_file_is_cut_short(files: Path, suffix: str) -> None:
    command = [sys.executable, "-c", LOAD, f"model.{suffix}"]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "7840.0"), done.stderr


def test_row56_without_room_for_a_copy_the_file_itself_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class FullDisk(io.BytesIO):
        """A file on a disk that takes nothing."""

        def write(self, _content: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __enter__(self) -> Self:
            return self

    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(3)}, path)
    monkeypatch.setattr(tempfile, "TemporaryFile", FullDisk)
    with private_copy(path) as copy:
        assert copy == path
    assert float(read_weights(path)["weight"].sum()) == 3
