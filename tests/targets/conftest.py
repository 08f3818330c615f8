"""The same weights as ONNX and as TFLite, made once."""

from __future__ import annotations

import contextlib
import io
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from targets import ssh as ssh_target
from targets.arm64 import _compile as compiled
from targets.artifact import Artifact, Format
from targets.ssh.bundle import set_up
from tests.fixtures.board import Board, board
from tests.fixtures.made_once import artifact_once, once, run_folder
from tests.fixtures.small_models import artifact, conv_net
from toolchain.core.context import silent


@pytest.fixture(scope="session")
def onnx_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact(conv_net(tmp_path_factory.mktemp("onnx") / "net.onnx"))


def _torch_net(broken: bool):
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 5, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 10)
    ).eval()
    if broken:
        with torch.no_grad():
            net[3].bias.fill_(float("nan"))
    return net


def _convert(path: Path, *, broken: bool = False) -> None:
    import litert_torch
    import torch

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        litert_torch.convert(_torch_net(broken), (torch.zeros(1, 1, 28, 28),)).export(str(path))


@pytest.fixture(scope="session")
def tflite_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact(once(run_folder(tmp_path_factory) / "net.tflite", _convert))


@pytest.fixture(scope="session")
def nan_artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A file of each format whose logits are never finite."""
    folder = tmp_path_factory.mktemp("nan")
    return {
        "onnx": artifact(conv_net(folder / "nan.onnx", weight=float("nan"))),
        "tflite": artifact(once(run_folder(tmp_path_factory) / "nan.tflite", partial(_convert, broken=True))),
    }


@pytest.fixture(scope="session")
def int8_artifact(tflite_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The TFLite net with int8 input, weights and output."""
    from litert_quantizer import quantizer, recipe

    def quantized(path: Path) -> None:
        press = quantizer.Quantizer(str(tflite_artifact.path))
        press.load_quantization_recipe(recipe.static_wi8_ai8())
        images = np.random.default_rng(1).random((32, 1, 1, 28, 28), dtype=np.float32)
        ranges = press.calibrate({"serving_default": [{"args_0": image} for image in images]})
        press.quantize(ranges).export_model(str(path), overwrite=True)

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return artifact(once(run_folder(tmp_path_factory) / "int8.tflite", quantized))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Format], Artifact]:
    """The shipped cnn-small, which reads 47 characters, as a float file of a format; made when it is asked for."""
    from toolchain.checkpoint import CheckpointRequest, settle
    from toolchain.export import export

    folder = run_folder(tmp_path_factory)
    model = settle("cnn-small", CheckpointRequest(), None).model

    @cache
    def made(kind: Format) -> Artifact:
        return artifact_once(folder / f"cnn-small.float.{kind}", lambda path: export(model, kind, path))

    return made


@pytest.fixture(scope="session")
def handwriting() -> np.ndarray:
    """Real handwritten glyphs, uint8 [100, 28, 28]."""
    from calibration.load import load

    return load("builtin:digits", "test").images[:100]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board that was set up."""
    with board(tmp_path_factory.mktemp("board") / "kitchen") as kitchen_board, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLYPHPRESS_SSH", kitchen_board.ssh)
        cache = kitchen_board.home / ".cache"

        def pushed(folder: Path) -> None:
            set_up(kitchen_board.word, progress=silent)
            compiled(cache)
            shutil.copytree(cache, folder, symlinks=True)

        # Unpacked and compiled there under QEMU it takes seconds each time.
        stored = once(run_folder(tmp_path_factory) / "board", pushed)
        if not cache.exists():
            shutil.copytree(stored, cache, symlinks=True)
        yield kitchen_board
        ssh_target.board(ssh_target.Address.parse(kitchen_board.word.removeprefix("ssh:"))).close()


@pytest.fixture
def reached(kitchen: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The same, and ssh as it is reached by."""
    monkeypatch.setenv("GLYPHPRESS_SSH", kitchen.ssh)
    return kitchen
