"""Models that want their images otherwise: each wish is found, and what cannot be told is an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.load import load
from targets.preprocess import Preprocess
from tests.fixtures.checkpoint_files import graph
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.preprocess_search import PreprocessFinding, Tried, larger_p_value, search
from toolchain.core.errors import CheckpointError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small batches on threads that wait for each other take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("builtin:digits", "train")


def trained(data: Dataset, preprocess: Preprocess, *, spare: int = 0, epochs: int = 3) -> nn.Module:
    """Return a small network that learnt the images as `preprocess` gives them."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(600, len(data.classes) + spare),
    )  # fmt: skip
    images, labels = torch.from_numpy(preprocess.apply(data.images)), torch.from_numpy(data.labels + spare)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


def searched(net: nn.Module, data: Dataset) -> PreprocessFinding:
    order = np.random.default_rng(0).permutation(len(data))
    return search(runner(net), data.images[order], data.labels[order], classes=data.classes)


def runner(net: nn.Module) -> Any:
    def run(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(batch)).numpy()

    return run


@pytest.mark.parametrize(
    ("preprocess", "spare"),
    [
        (Preprocess(), 0),
        (Preprocess("transpose"), 0),
        (Preprocess("anti-transpose", mean=0.1307, std=0.3081), 0),
        (Preprocess(invert=True), 0),
        (Preprocess(scale="0-255"), 0),
        (Preprocess("rot90", mean=0.5, std=0.5), 0),
        (Preprocess("mirror", "0-255", invert=True), 1),
        (Preprocess("flip"), 1),
    ],
    ids=lambda value: f"{value.orientation} {value.scale}" if isinstance(value, Preprocess) else str(value),
)
def test_a_published_models_wish_is_found(preprocess: Preprocess, spare: int, digits: Dataset) -> None:
    finding = searched(trained(digits, preprocess, spare=spare), digits)
    winner = finding.winner
    assert (winner.orientation, winner.invert, winner.label_offset) == (
        preprocess.orientation,
        preprocess.invert,
        spare,
    )
    # A scaling that reads nearly the same may be taken, when the one that was trained with is named beside it.
    same = [(p.scale, p.mean) for p in (winner, *finding.equivalent)]
    assert (preprocess.scale, preprocess.mean) in same
    assert finding.accuracy > 0.9
    assert finding.accuracy - finding.runner_up_accuracy > 0.2
    assert f"{finding.accuracy:.1%} right; next best" in finding.sentence()
    assert f" {finding.runner_up_accuracy:.1%}, {finding.runner_up}" in finding.sentence()
    assert all(str(other).partition(", ")[2] in finding.sentence() for other in finding.equivalent)


def test_row20_the_next_best_is_named_where_it_is_the_same_turn_with_another_mean(digits: Dataset) -> None:
    finding = searched(trained(digits, Preprocess("transpose", mean=0.1307, std=0.3081)), digits)
    others = [row for row in finding.table if row.preprocess.orientation == "transpose" and not row.preprocess.invert]
    second = next(row for row in others if row.preprocess != finding.winner)
    assert second.accuracy > finding.runner_up_accuracy
    assert finding.rescaled == second
    sentence = f"next best {second.accuracy:.1%}, {second.preprocess}; other turn, ink or labels "
    assert f"{sentence}{finding.runner_up_accuracy:.1%}, {finding.runner_up}" in finding.sentence()
    assert "other scalings" not in finding.sentence()


def test_why_a_scaling_with_more_images_right_was_not_taken_is_said() -> None:
    winner, other, mirrored = Preprocess(), Preprocess(scale="0-255"), Preprocess("mirror")
    rows = (Tried(other, 0.854, -0.6, 1500), Tried(winner, 0.851, -0.5, 1500))
    finding = PreprocessFinding(winner, 0.851, mirrored, 0.2, 1500, rows, rescaled=rows[0])
    why = "no significant gain, and less sure of the right class; `--orientation upright --scale 0-255` takes it"
    assert f"found: 85.1% right; 85.4% as upright, 0 to 255 ({why}); other turn" in finding.sentence()
    assert "next best" not in finding.sentence(), "what is better is no second best"
    less = replace(finding, rescaled=replace(rows[0], accuracy=0.8))
    assert "next best 80.0%, upright, 0 to 255; other turn" in less.sentence()


def test_a_model_that_cannot_tell_left_from_right_is_a_tie(digits: Dataset) -> None:
    net = trained(digits, Preprocess())

    class Mirrored(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return net(image) + net(image.flip(3))

    with pytest.raises(CheckpointError, match="do not decide") as refused:
        searched(Mirrored(), digits)
    for turn in ("upright", "mirror"):
        assert f"`--orientation {turn} --scale 0-1" in str(refused.value)


def test_scalings_that_read_otherwise_but_equally_well_are_a_tie(digits: Dataset) -> None:
    net = trained(digits, Preprocess())

    class TwoWishes(nn.Module):
        """Right on one half of the images under one scaling, on the other half under another."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raw = bool(image.max() > 2)
            pixels = (image / 255 if raw else image).clamp(0, 1)
            odd = (pixels.sum((1, 2, 3)) * 255).round().long() % 2 == 1
            logits = net(pixels)
            wrong = odd if raw else ~odd
            half = wrong & (pixels.sum((1, 2, 3)) * 255 % 5 < 1)
            return torch.where(half[:, None], logits.roll(1, 1), logits)

    with pytest.raises(
        CheckpointError,
        match=r"do not decide .*`--orientation upright --scale 0-(1|255)` or `--orientation upright --scale 0-(1|255)`",
    ):
        searched(TwoWishes(), digits)


def test_a_model_of_something_else_does_not_read_these_images(digits: Dataset) -> None:
    with pytest.raises(CheckpointError, match=r"does not read these images: .*chance is 1"):
        searched(trained(digits, Preprocess(), epochs=0), digits)


def test_a_model_that_answers_nan_does_not_win(digits: Dataset) -> None:
    net = trained(digits, Preprocess("transpose"))

    class Overflows(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return net(image) if image.max() <= 1 else net(image) * float("nan")

    assert searched(Overflows(), digits).winner.orientation == "transpose"


def test_too_few_images_settle_nothing(digits: Dataset) -> None:
    with pytest.raises(CheckpointError, match="49 labelled images are too few"):
        search(runner(nn.Flatten()), digits.images[:49], digits.labels[:49], classes=digits.classes)


def test_a_width_of_other_classes_is_an_error(digits: Dataset) -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(784, 47)).eval()
    with pytest.raises(CheckpointError, match="47 columns for 10 classes"):
        searched(wide, digits)


def test_an_onnx_checkpoint_is_settled_end_to_end(digits: Dataset, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = torch.from_numpy(Preprocess("anti-transpose", invert=True).apply(digits.images))
    optimizer = torch.optim.Adam(linear.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(images), torch.from_numpy(digits.labels)).backward()
        optimizer.step()
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [
                onnx.helper.make_node("Flatten", ["x"], ["f"]),
                onnx.helper.make_node("Gemm", ["f", "w", "b"], ["l"], transB=1),
                onnx.helper.make_node("Softmax", ["l"], ["p"]),
            ],
            "linear",
            [onnx.helper.make_tensor_value_info("x", 1, [1, 28, 28, 1])],
            [onnx.helper.make_tensor_value_info("p", 1, [1, 10])],
            [numpy_helper.from_array(linear[1].weight.detach().numpy(), "w"),
             numpy_helper.from_array(linear[1].bias.detach().numpy(), "b")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    onnx.save(model, tmp_path / "linear.onnx")
    settled = settle(str(tmp_path / "linear.onnx"), CheckpointRequest(), digits)
    assert settled.finding is not None
    assert (settled.model.preprocess.orientation, settled.model.preprocess.invert) == ("anti-transpose", True)
    assert settled.model.history[-1].startswith("preprocess anti-transpose")


def test_given_and_stored_preprocess_are_not_searched_and_stored_must_be_there(tmp_path: Path, digits: Dataset) -> None:
    import onnx

    onnx.save(graph(), tmp_path / "net.onnx")
    given = CheckpointRequest(preprocess=Preprocess("rot180"), classes=digits.classes)
    settled = settle(str(tmp_path / "net.onnx"), given, None)
    assert (settled.finding, settled.model.preprocess) == (None, Preprocess("rot180"))
    with pytest.raises(CheckpointError, match="does not say how it wants images"):
        settle(str(tmp_path / "net.onnx"), CheckpointRequest(search=False), digits)
    with pytest.raises(CheckpointError, match="needs labelled training images"):
        settle(str(tmp_path / "net.onnx"), CheckpointRequest(classes=digits.classes), None)


@pytest.fixture(scope="module")
def undecided(digits: Dataset) -> nn.Module:
    net = trained(digits, Preprocess("transpose", mean=0.1307, std=0.3081))

    class Undecided(nn.Module):
        """Reads alike well with MNIST's and with EMNIST's mean and std, but errs on other images under each."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            other = (image.amin((1, 2, 3)) + 0.1722 / 0.3309).abs() < 1e-3
            pixels = torch.where(other[:, None, None, None], image * 0.3309 + 0.1722, image * 0.3081 + 0.1307)
            logits = self.net((pixels - 0.1307) / 0.3081)
            ink = ((pixels * 255).sum((1, 2, 3)).round().long()) % 20
            wrong = (other & (ink == 3)) | (~other & (ink == 7))
            return torch.where(wrong[:, None], logits.roll(1, 1), logits)

    return Undecided().eval()


MNIST = Preprocess("transpose", mean=0.1307, std=0.3081)
EMNIST = Preprocess("transpose", mean=0.1722, std=0.3309)


def test_row20_a_tie_of_mean_and_std_takes_the_likelier_and_names_the_other(
    undecided: nn.Module, digits: Dataset
) -> None:
    finding = searched(undecided, digits)
    assert {finding.winner, *finding.undecided} == {MNIST, EMNIST}
    other = {MNIST: EMNIST, EMNIST: MNIST}[finding.winner]
    fix = f"--orientation transpose --scale 0-1 --mean {other.mean} --std {other.std}"
    assert finding.sentence().count("a tie of mean and std") == 1
    assert f"`{fix}`" in finding.sentence()
    assert finding.undecided == (other,)


def test_row20_a_tie_costs_no_more_images_than_the_likelihoods_of_the_tied_need(
    undecided: nn.Module, digits: Dataset
) -> None:
    shown, order = 0, np.random.default_rng(0).permutation(len(digits))

    def counting(batch: np.ndarray) -> Any:
        nonlocal shown
        shown += len(batch)
        return runner(undecided)(batch)

    search(counting, digits.images[order], digits.labels[order], classes=digits.classes)
    candidates = 5 * 2 * 8
    assert shown < candidates * 32 + 20 * 68 + 6 * 300 + 2 * len(digits)


def test_row20_export_and_press_say_the_tie_once(
    glyphpress: Any, undecided: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.trace(undecided, torch.zeros(2, 1, 28, 28)), tmp_path / "undecided.ts")
    arguments = (tmp_path / "undecided.ts", "--data", "builtin:digits")
    exported = glyphpress("export", *arguments, "-o", tmp_path / "u.onnx")
    assert exported.code == 0, exported.err
    assert exported.out.count("a tie of mean and std") == 1
    assert "a tie of mean and std" in (tmp_path / "u.onnx.json").read_text()
    run = glyphpress("press", *arguments, "--recipe", "float16", "--format", "onnx", "--out", tmp_path / "out")
    assert run.code in (0, 1, 5), run.err
    assert run.out.count("a tie of mean and std") == 1
    assert run.out.count("(found:") == 1
    assert "a tie of mean and std" in (tmp_path / "out" / "report.json").read_text()


def test_row20_a_file_that_is_judged_is_not_guessed_at_but_adopted(
    glyphpress: Any, undecided: nn.Module, tmp_path: Path
) -> None:
    torch.onnx.export(undecided, torch.zeros(1, 1, 28, 28), tmp_path / "u.onnx", dynamo=False, input_names=["image"],
                      output_names=["logits"], dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}})  # fmt: skip
    data = ("--data", "builtin:digits")
    refused = glyphpress("evaluate", tmp_path / "u.onnx", *data)
    assert refused.code == 3
    for known in (MNIST, EMNIST):
        assert f"`--orientation transpose --scale 0-1 --mean {known.mean} --std {known.std}`" in refused.err
    assert f"`glyphpress adopt {tmp_path / 'u.onnx'} --data DATA" in refused.err
    adopted = glyphpress("adopt", tmp_path / "u.onnx", *data)
    assert adopted.code == 0, adopted.err
    assert adopted.out.count("a tie of mean and std") == 1
    assert glyphpress("evaluate", tmp_path / "u.onnx", *data).code == 0


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05])
def test_the_paired_t_test_is_that_of_scipy(shift: float) -> None:
    from scipy.stats import ttest_rel

    likelihood, noise = np.random.default_rng(0).normal(size=(2, 400))
    other = likelihood + 0.5 * noise + shift
    assert larger_p_value(likelihood, other) == pytest.approx(
        ttest_rel(likelihood, other, alternative="greater").pvalue, rel=1e-12
    )
    assert np.isnan(larger_p_value(likelihood, likelihood))
