"""A file of weights that another process cuts short while they are read: a mapped one would end the run by a signal."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

from toolchain.checkpoint.torch_files import private_copy, read_weights

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
