"""A killed training continues with the same bits, alone and in a press; the state of another training is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from tests.fixtures.lazy import blocks, torch
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, StageError, UsageProblem
from toolchain.core.trainings import SCHEMA, packed, unpacked
from toolchain.training.fit import EpochResult
from toolchain.training.settings import TrainSettings
from toolchain.training.train import TrainResult, train

KILLED = """
import os, signal, sys
from toolchain.training import fit
from toolchain.cli.main import main
every, at = float(sys.argv.pop(1)), int(sys.argv.pop(1))
fit.SAVE_SECONDS = every
step, done = fit._Loop.step, []
def killed(loop, indices):
    done.append(1)
    if len(done) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(loop, indices)
fit._Loop.step = killed
main()
"""
"""Runs glyphpress until a step of a training, with the seconds between saved states before the number of the step."""
DATA = ("--data", "builtin:digits[0-2]", "--threads", "1")
SHORT = TrainSettings(epochs=3, batch=32, lr=3e-3, ema=0.9, held_out=0.1)
RECIPE = """
name = "taught"
formats = ["onnx"]
[[steps]]
kind = "distill"
student = "cnn-small"
channels = [8, 8, 8, 8, 8]
epochs = 1
[[steps]]
kind = "qat"
epochs = 2
[[steps]]
kind = "quantize"
scheme = "static-int8"
"""


def kill(every: float, step: int, *words: object) -> None:
    command = [sys.executable, "-c", KILLED, str(every), str(step), *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


# 5 steps an epoch. In the second, the state is that of the step before, or of the end of the first.
@pytest.mark.parametrize("every", [0.0, 60.0], ids=["state of the last step", "state of the last epoch"])
def test_a_training_that_was_killed_continues_to_the_bit(every: float, glyphpress: Callable, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.pt", tmp_path / "model.pt"
    words = ("train", *DATA, "--epochs", 2, "-o")
    kill(every, 8, *words, out)
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.pt.resume"}
    refused = glyphpress(*words, out)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "model.pt.resume is left of an unfinished run; add --resume" in refused.err
    done = glyphpress(*words, out, "--resume")
    assert done.code == 0, done.err
    assert "continues in epoch 2" in done.err
    assert glyphpress(*words, whole).code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "whole.pt"}


def test_a_press_that_was_killed_continues_to_the_bit_and_repeats_no_step(
    glyphpress: Callable, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taught.toml").write_text(RECIPE)
    options = ("--recipe", "taught.toml", "--format", "onnx", "--policy", "smoke", "--seconds", "10ms")
    words = ("press", checkpoint, "--data", "builtin:digits", "--threads", "1", *options, "--out")
    # 16 steps of distillation, then 18 in each epoch of quantization-aware training.
    kill(60.0, 39, *words, "out")
    assert Path("out.resume").is_file()
    assert not Path("out").exists()
    done = glyphpress(*words, "out", "--resume")
    assert done.code in (0, 1, 5), done.err
    assert "out.resume: this training is done" in done.err
    assert "out.resume: continues in epoch 2" in done.err
    assert glyphpress(*words, "whole").code == done.code
    name = f"{checkpoint.stem}.taught.onnx"
    assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert not Path("out.resume").exists()


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("builtin:digits", "train").take(np.arange(300), "few")


def stopping(step: int) -> RunContext:
    """Return the context of a training that is interrupted after a step."""

    def stop(_label: str, done: int, _total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return RunContext(threads=1, progress=stop)


def trained(
    data: Dataset,
    out: Path,
    context: RunContext,
    settings: TrainSettings = SHORT,
    seen: list[EpochResult] | None = None,
) -> TrainResult:
    on_epoch = seen.append if seen is not None else None
    return train(data, model=blocks.Linear(), settings=settings, out=out, on_epoch=on_epoch, context=context)


def interrupt(data: Dataset, out: Path) -> None:
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt, match="holds epoch 2 of 3; the same command with --resume continues"):
        trained(data, out, stopping(20))
    torch.manual_seed(0)


def test_the_results_of_all_epochs_are_there_after_a_kill(few: Dataset, tmp_path: Path) -> None:
    interrupt(few, tmp_path / "m.pt")
    seen: list[EpochResult] = []
    result = trained(few, tmp_path / "m.pt", RunContext(threads=1, resume=True), seen=seen)
    assert [epoch.epoch for epoch in seen] == [3]
    assert [epoch.epoch for epoch in seen[0].earlier] == [1, 2]
    assert [epoch.steps for epoch in result.epochs] == [8, 16, 24]
    seconds = [epoch.seconds for epoch in result.epochs]
    assert seconds == sorted(seconds)
    torch.manual_seed(0)
    whole = trained(few, tmp_path / "whole.pt", RunContext(threads=1))
    assert [epoch.loss for epoch in whole.epochs] == [epoch.loss for epoch in result.epochs]


@pytest.mark.parametrize(
    "changes",
    [
        {"patience": 2, "schedule": "plateau"},
        {"sampling": "balanced", "balance": 0.0, "mixup": 0.4, "elastic": 1.0},
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "step"},
    ],
    ids=["stopping", "sampling", "momentum"],
)
def test_every_kind_of_training_continues_with_the_same_weights(changes: dict, few: Dataset, tmp_path: Path) -> None:
    settings = SHORT.changed(**changes)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        trained(few, tmp_path / "m.pt", stopping(20), settings)
    torch.manual_seed(0)
    trained(few, tmp_path / "m.pt", RunContext(threads=1, resume=True), settings)
    torch.manual_seed(0)
    trained(few, tmp_path / "whole.pt", RunContext(threads=1), settings)
    assert (tmp_path / "m.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": TrainSettings(**(vars(SHORT) | {"lr": 1e-3}))}, "lr 0.003 there, 0.001 here"),
        ({"context": RunContext(threads=1, resume=True, seed=4)}, "seed 0 there, 4 here"),
        ({"context": RunContext(threads=2, resume=True)}, "threads 1 there, 2 here"),
        ({"data": "other"}, r"images .*\[few\] \w+ there, .*\[other\] \w+ here"),
    ],
    ids=["settings", "seed", "threads", "data"],
)
def test_the_state_of_another_training_is_refused_with_what_differs(
    changes: dict, message: str, few: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "m.pt"
    interrupt(few, out)
    before = out.read_bytes(), Path(f"{out}.resume").read_bytes()
    data = few.take(np.arange(299), "other") if "data" in changes else few
    with pytest.raises(UsageProblem, match=f"m.pt.resume is of another training .*{message}.*--force without --resume"):
        trained(data, out, changes.get("context", RunContext(threads=1, resume=True)), changes.get("settings", SHORT))
    assert (out.read_bytes(), Path(f"{out}.resume").read_bytes()) == before


def test_force_starts_over(few: Dataset, tmp_path: Path) -> None:
    interrupt(few, tmp_path / "m.pt")
    seen: list[EpochResult] = []
    trained(few, tmp_path / "m.pt", RunContext(threads=1, force=True), seen=seen)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


class Code:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def with_digest(content: bytes) -> bytes:
    return f"{SCHEMA} {hashlib.sha256(content).hexdigest()}\n".encode() + content


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "its first line does not say"),
        ("text", "its first line does not say"),
        ("other file", "its first line does not say"),
        ("pickled code", "its first line does not say"),
        ("pickled code with a digest", "Weights only load failed"),
        ("cut off", "it was cut off or changed after it was written"),
        ("cut off early", "it was cut off or changed after it was written"),
        ("one byte changed", "it was cut off or changed after it was written"),
        ("other content", "it holds something else"),
    ],
)
def test_a_file_that_is_no_state_is_refused_and_runs_no_code(
    kind: str, reason: str, few: Dataset, tmp_path: Path
) -> None:
    out, mark = tmp_path / "m.pt", tmp_path / "mark"
    interrupt(few, out)
    state = tmp_path / "m.pt.resume"
    content, code = state.read_bytes(), pickle.dumps([Code(mark)], protocol=2)
    middle = len(content) // 2
    match kind:
        case "empty" | "text":
            state.write_text("no state" * (kind == "text"))
        case "other file":
            torch.save({"weights": torch.zeros(3)}, state)
        case "pickled code" | "pickled code with a digest":
            state.write_bytes(code if kind == "pickled code" else with_digest(code))
        case "cut off" | "cut off early":
            state.write_bytes(content[: -100 if kind == "cut off" else 5000])
        case "one byte changed":
            state.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case _:
            state.write_bytes(packed([{"weights": torch.zeros(3)}]))
    with pytest.raises(
        EvidenceError, match=rf"m\.pt\.resume does not hold .*{reason}.*--force without --resume starts"
    ):
        trained(few, out, RunContext(threads=1, resume=True))
    assert not mark.exists()


def test_a_state_with_tensors_missing_is_refused_in_one_line(few: Dataset, tmp_path: Path) -> None:
    out, state = tmp_path / "m.pt", tmp_path / "m.pt.resume"
    interrupt(few, out)
    trainings = unpacked(state.read_bytes())
    trainings[0]["state"]["student"].clear()
    state.write_bytes(packed(trainings))
    with pytest.raises(EvidenceError, match=r"m\.pt\.resume is damaged .*--force without --resume starts over"):
        trained(few, out, RunContext(threads=1, resume=True))


def test_a_training_that_diverged_leaves_no_state(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0] * 10 + [float("nan")])
    monkeypatch.setattr("toolchain.training.fit._Loop.step", lambda _loop, _indices: next(losses))
    with pytest.raises(StageError, match="holds epoch 1 of 3"):
        trained(few, tmp_path / "m.pt", RunContext(threads=1))
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]
