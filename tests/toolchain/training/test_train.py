"""Training: repeatable, honest about the test split, and it leaves the last good epoch."""

from __future__ import annotations

import copy
import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.load import load
from calibration.sample import image_hashes
from targets.preprocess import Preprocess
from tests.fixtures.lazy import blocks, nn, torch
from toolchain import models
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.training.fit import EpochResult, accuracy, fit, hold_out
from toolchain.training.presets import preset
from toolchain.training.settings import TrainSettings
from toolchain.training.train import train

SHORT = TrainSettings(epochs=2, batch=64, lr=3e-3, ema=0.9, held_out=0.1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("builtin:digits", "train")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return digits.take(np.arange(300), "few")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def weights(module: nn.Module) -> list[torch.Tensor]:
    return list(module.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_a_seed_repeats_the_run_bit_for_bit_and_another_does_not(few: Dataset) -> None:
    part = few.take(np.arange(150), "part")
    first, again, other = (
        train(part, settings=SHORT, context=RunContext(seed=seed, threads=2)).module for seed in (3, 3, 4)
    )
    assert same(first, again)
    assert not same(first, other)


def test_training_leaves_torch_and_the_given_module_as_they_were(few: Dataset) -> None:
    module = blocks.Linear()
    before, state, threads = copy.deepcopy(module), torch.get_rng_state(), torch.get_num_threads()
    fitted = fit(module, few, Preprocess(), SHORT, context=RunContext(threads=1))
    assert same(module, before)
    assert module.training
    assert not fitted.training
    assert not same(fitted, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_the_digits_preset_learns_to_read(digits: Dataset) -> None:
    test = load("builtin:digits", "test")
    result = train(digits, test=test, settings=preset("digits"), context=RunContext())
    assert result.test_accuracy is not None
    assert result.test_accuracy >= 0.95


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(label_offset=1),
        Preprocess(orientation="transpose", invert=True, mean=0.5, std=0.5),
        Preprocess(layout="NHWC"),
    ],
    ids=["letters-like labels", "turned and inverted", "channels last"],
)
def test_fit_feeds_the_model_as_its_preprocess_says(few: Dataset, preprocess: Preprocess) -> None:
    settings = replace(SHORT, epochs=8, batch=32, augment=0.0)
    fitted = fit(blocks.Linear(10 + preprocess.label_offset), few, preprocess, settings, context=RunContext())
    assert accuracy(fitted, few, preprocess) > 0.85
    logits = fitted(torch.from_numpy(preprocess.apply(few.images)))
    share = (logits.argmax(1).numpy() == few.labels + preprocess.label_offset).mean()
    assert share > 0.85


def test_a_model_with_too_few_outputs_is_refused(few: Dataset) -> None:
    with pytest.raises(StageError, match=r"10 outputs.*10 classes from column 1"):
        fit(blocks.Linear(10), few, Preprocess(label_offset=1), SHORT, context=RunContext())


def test_a_test_split_is_never_fitted() -> None:
    with pytest.raises(UsageProblem, match="test split"):
        fit(blocks.Linear(), load("builtin:digits", "test"), Preprocess(), SHORT, context=RunContext())


def test_a_test_split_of_other_data_is_refused(few: Dataset) -> None:
    other = replace(load("builtin:digits", "test"), classes=tuple("abcdefghij"))
    with pytest.raises(UsageProblem, match="other classes"):
        train(few, test=other, settings=SHORT, context=RunContext())


def test_a_model_that_cannot_take_the_images_is_refused_in_one_line(few: Dataset) -> None:
    for_one_image = torch.export.export(models.build("cnn-small", 10).eval(), (torch.zeros(1, 1, 28, 28),)).module()
    for stranger in (nn.Linear(32, 10), for_one_image):
        with pytest.raises(StageError, match=r"float32 \[2, 1, 28, 28\]") as refused:
            fit(stranger, few, Preprocess(), SHORT, context=RunContext())
        assert "\n" not in str(refused.value)


def test_weights_that_are_nan_are_named_as_the_cause(few: Dataset) -> None:
    module = blocks.Linear()
    nn.init.constant_(module.layer.weight, float("nan"))
    with pytest.raises(StageError, match="before the first step"):
        fit(module, few, Preprocess(), SHORT, context=RunContext())


def test_a_diverging_loss_keeps_the_last_good_epoch_and_says_the_fix(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    seen: list[EpochResult] = []

    class Poisoned(blocks.Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image) * (float("nan") if seen and self.training else 1.0)

    with pytest.raises(StageError, match=rf"epoch 2; lower the learning rate.*--lr.*{out} holds epoch 1 of 2"):
        train(few, model=Poisoned(), settings=SHORT, out=out, on_epoch=seen.append, context=RunContext())
    content = torch.load(out, weights_only=True)
    assert content["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())


def test_an_interruption_says_where_the_last_epoch_is(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"

    def stop(label: str, done: int, total: int) -> None:
        if done > total * 3 // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"{out} holds epoch 1 of 2"):
        train(few, model=blocks.Linear(), settings=SHORT, out=out, context=RunContext(progress=stop))
    assert torch.load(out, weights_only=True)["epoch"] == 1
    assert set(tmp_path.iterdir()) == {out, tmp_path / "model.pt.resume"}


def test_an_interruption_in_the_first_epoch_leaves_nothing(few: Dataset, tmp_path: Path) -> None:
    def stop(label: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="nothing was written"):
        train(few, model=blocks.Linear(), settings=SHORT, out=tmp_path / "model.pt", context=RunContext(progress=stop))
    assert not list(tmp_path.iterdir())


def test_a_file_beside_the_weights_that_cannot_be_written_leaves_them_and_names_both(
    few: Dataset, tmp_path: Path
) -> None:
    def full(_epoch: EpochResult) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "log.csv")

    out = tmp_path / "model.pt"
    message = rf"log.csv could not be written \(No space left on device\).*{out} holds epoch 1 of 2"
    with pytest.raises(StageError, match=message):
        train(few, model=blocks.Linear(), settings=SHORT, out=out, on_epoch=full, context=RunContext())
    assert torch.load(out, weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(("number", "advice"), [(errno.ENOSPC, r"free [\d.]+ KB or name"), (errno.ENOENT, "name")])
def test_weights_that_cannot_be_written_are_not_said_to_be_there(
    number: int, advice: str, few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise OSError(number, "it failed")

    monkeypatch.setattr("toolchain.models.saving.whole_file", fails)
    message = rf"model.pt could not be written \(it failed\); {advice} another place; no epoch was saved"
    with pytest.raises(StageError, match=message):
        train(few, model=blocks.Linear(), settings=SHORT, out=tmp_path / "model.pt", context=RunContext())
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_loads_without_pickle_and_holds_the_averaged_weights(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    test = load("builtin:digits", "test")
    result = train(few, settings=SHORT, test=test, out=out, context=RunContext(seed=7))
    content = torch.load(out, weights_only=True)
    module = models.build(content["model"], classes=len(content["classes"]), **content["options"])
    module.load_state_dict(content["state_dict"])
    assert same(module, result.module)
    assert accuracy(module, test, Preprocess.from_dict(content["preprocess"])) == result.test_accuracy
    assert content["schema"] == "glyphpress/checkpoint/1"
    assert content["seed"] == 7
    assert content["epoch"] == 2
    assert TrainSettings(**content["settings"]) == SHORT
    assert content["data"] == {"origin": few.origin, "sha256": few.sha256, "images": 300}
    assert content["test"]["accuracy"] == content["test"]["right"] / 599
    assert content["held_out_accuracy"] == result.epochs[-1].held_out_accuracy


def test_a_file_that_is_there_is_refused_before_anything_is_fitted(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    out.write_text("mine")
    with pytest.raises(UsageProblem, match="--force"):
        train(
            few,
            model=blocks.Linear(),
            settings=SHORT,
            out=out,
            context=RunContext(progress=lambda *_: pytest.fail("it started")),
        )
    assert out.read_text() == "mine"
    train(few, model=blocks.Linear(), settings=SHORT, out=out, context=RunContext(force=True))
    assert torch.load(out, weights_only=True)["model"] == "Linear"


def test_balance_reads_rare_classes_that_frequencies_would_lose(digits: Dataset) -> None:
    # 1 and 7 as they come, except that a 7 is rare.
    ones, sevens = (np.flatnonzero(digits.labels == label) for label in (1, 7))
    lopsided = digits.take(np.concatenate([ones, sevens[:4]]), "lopsided")
    rest = digits.take(np.concatenate([ones[:1], sevens[20:]]), "nearly all sevens")
    settings = TrainSettings(epochs=10, batch=16, lr=3e-3, ema=0.5, held_out=0.0)
    reads = {
        balance: accuracy(
            fit(blocks.Linear(), lopsided, Preprocess(), replace(settings, balance=balance), context=RunContext()),
            rest,
            Preprocess(),
        )
        for balance in (0.0, 1.0)
    }
    assert reads[0.0] < 0.3
    assert reads[1.0] > 0.8


def test_held_out_images_are_not_fitted(few: Dataset) -> None:
    fed: list[torch.Tensor] = []

    class Watched(blocks.Linear):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if self.training:
                fed.append(image.detach())
            return super().forward(image)

    settings = replace(SHORT, epochs=4, batch=16, held_out=0.2, augment=0.0)
    fit(Watched(), few, Preprocess(), settings, context=RunContext(seed=5))
    fitted, held = hold_out(few, 0.2, seed=5)
    seen = set(image_hashes((torch.cat(fed)[:, 0] * 255).round().to(torch.uint8).numpy()))
    assert seen == set(image_hashes(few.images[fitted]))
    assert seen.isdisjoint(image_hashes(few.images[held]))


def numbered(numbers: np.ndarray, labels: np.ndarray) -> Dataset:
    """Return a data set whose images show their number in their first pixels."""
    images = np.zeros((len(numbers), 28, 28), np.uint8)
    images[:, 0, :2] = numbers.astype(">u2").view(np.uint8).reshape(-1, 2)
    return Dataset(images, labels, tuple("abcdefgh"), "numbered/train", "train", "")


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_holding_out_parts_every_class(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    fitted, held = hold_out(numbered(np.arange(len(labels)), labels), share, seed)
    assert sorted([*fitted, *held]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        kept = int((labels[held] == label).sum())
        assert kept == (max(round(share * count), 1) if share and count > 1 else 0)
        assert count == 0 or kept < count


@given(data=st.data(), images=st.integers(1, 60), share=st.floats(0.01, 0.5), seed=st.integers(0, 2**32 - 1))
def test_copies_of_an_image_are_all_fitted_or_all_held_out(
    data: st.DataObject, images: int, share: float, seed: int
) -> None:
    numbers = np.array(data.draw(st.lists(st.integers(0, 20), min_size=images, max_size=images)))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=images, max_size=images)))
    fitted, held = hold_out(numbered(numbers, labels), share, seed)
    assert sorted([*fitted, *held]) == list(range(images))
    assert set(numbers[fitted]).isdisjoint(numbers[held])
    assert set(labels[fitted]) == set(labels)


def test_copies_do_not_enlarge_what_is_held_out() -> None:
    numbers, labels = np.arange(100), np.repeat([0, 1], 50)
    alone = hold_out(numbered(numbers, labels), 0.2, 7)[1]
    fitted, held = hold_out(numbered(np.concatenate([numbers] * 3), np.concatenate([labels] * 3)), 0.2, 7)
    assert held.tolist() == [*alone, *(alone + 100), *(alone + 200)]
    assert len(fitted) == 240


@pytest.mark.parametrize("images", [11, 70])
def test_the_shortest_training_there_is(few: Dataset, images: int) -> None:
    settings = TrainSettings(epochs=1, batch=64, held_out=0.0)
    seen: list[EpochResult] = []
    fit(
        blocks.Linear(),
        few.take(np.arange(images), "handful"),
        Preprocess(),
        settings,
        on_epoch=seen.append,
        context=RunContext(),
    )
    assert [(epoch.epoch, epoch.held_out_accuracy) for epoch in seen] == [(1, None)]


@pytest.mark.parametrize("steps", range(1, 11))
def test_a_training_of_few_steps_runs(steps: int, few: Dataset) -> None:
    settings = replace(SHORT, epochs=steps, batch=100, held_out=0)
    result = train(few.take(np.arange(100), "hundred"), model=blocks.Linear(), settings=settings, context=RunContext())
    assert len(result.epochs) == steps
