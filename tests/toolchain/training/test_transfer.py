"""Transfer: a training starts from a checkpoint's weights, keeps what is frozen, and says what its head became."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from tests.fixtures.lazy import nn, torch
from toolchain import models
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.core.context import RunContext
from toolchain.core.errors import CheckpointError, PreprocessUnknown, UsageProblem
from toolchain.models.saving import save
from toolchain.training.fit import accuracy
from toolchain.training.settings import TrainSettings
from toolchain.training.train import train
from toolchain.training.transfer import Freeze, start_from

SHORT = TrainSettings(epochs=2, batch=32, lr=1e-3, ema=0.9, held_out=0)
CONTEXT = RunContext(threads=1)
HEAD = {"classifier.weight", "classifier.bias"}


@pytest.fixture(scope="module")
def odd(digits: Dataset) -> Dataset:
    """Classes that the checkpoint reads, in another order, and new ones."""
    five = digits.choose(tuple("97531"))
    return replace(five, classes=("9", "7", "x", "3", "y")).take(np.arange(200), "odd")


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of the weights that differ."""
    old, new = before.state_dict(), after.state_dict()
    return {name for name in new if name not in old or not torch.equal(new[name], old[name])}


def test_columns_of_the_same_name_start_from_the_checkpoint_and_others_do_not(checkpoint: Path, odd: Dataset) -> None:
    start = start_from(str(checkpoint), odd)
    before = settle(str(checkpoint), CheckpointRequest(), None).model.module
    old, new = before.classifier.weight, start.module.classifier.weight
    assert torch.equal(new[[0, 1, 3]], old[[9, 7, 3]])
    assert not any(torch.equal(row, other) for row in new[[2, 4]] for other in old)
    assert changed(before, start.module) == HEAD
    assert start.notes == (
        "new head classifier: 5 classes for the checkpoint's 10; 3 start from those of the same name",
    )


def test_a_subset_of_the_classes_is_read_before_any_training(
    checkpoint: Path, digits: Dataset, digits_test: Dataset
) -> None:
    start = start_from(str(checkpoint), digits.choose(("1", "0")))
    assert accuracy(start.module, digits_test.choose(("1", "0")), start.preprocess) > 0.98


def test_the_same_classes_keep_the_head(checkpoint: Path, digits: Dataset) -> None:
    start = start_from(str(checkpoint), digits)
    assert changed(settle(str(checkpoint), CheckpointRequest(), None).model.module, start.module) == set()
    assert not start.notes


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        (Freeze(), lambda name: name not in HEAD),
        (Freeze(until="features.norm3"), lambda name: name.startswith("features.") and name.split(".")[1][-1] in "123"),
        (Freeze(epochs=1), lambda _name: False),
        (None, lambda _name: False),
    ],
    ids=["all but the head", "until", "first epoch", "nothing"],
)
def test_frozen_weights_and_statistics_stay_to_the_bit(
    freeze: Freeze | None, frozen: Callable[[str], bool], checkpoint: Path, odd: Dataset
) -> None:
    start = start_from(str(checkpoint), odd, freeze=freeze)
    fitted = train(odd, start=start, settings=SHORT, context=CONTEXT).module
    assert changed(start.module, fitted) == {name for name in fitted.state_dict() if not frozen(name)}


def test_the_result_loads_again_and_names_the_file_it_came_from(checkpoint: Path, odd: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "odd.pt"
    start = start_from(str(checkpoint), odd, freeze=Freeze())
    fitted = train(odd, start=start, settings=SHORT, out=out, context=CONTEXT)
    model = settle(str(out), CheckpointRequest(), None).model
    assert model.classes == odd.classes
    assert changed(fitted.module, model.module) == set()
    facts = torch.load(out, weights_only=True)["start"]
    assert facts["sha256"] == settle(str(checkpoint), CheckpointRequest(), None).model.checkpoint_sha256
    assert facts["classes"] == list("0123456789")
    assert facts["head"] == {"layer": "classifier", "new": True, "columns": 5, "copied": 3}


def test_options_of_the_architecture_and_preprocess_are_those_of_the_file(odd: Dataset, tmp_path: Path) -> None:
    narrow = models.build("cnn-small", 10, width=0.5)
    facts = {"model": "cnn-small", "options": {"width": 0.5}, "classes": list("abcdefghi9")}
    save(tmp_path / "narrow.pt", narrow, facts | {"preprocess": Preprocess(mean=0.1).to_dict()})
    start = start_from(str(tmp_path / "narrow.pt"), odd)
    assert start.preprocess == Preprocess(mean=0.1)
    result = train(odd, start=start, settings=SHORT, out=tmp_path / "out.pt", context=CONTEXT)
    assert (result.facts["model"], result.facts["options"]) == ("cnn-small", {"width": 0.5})
    assert settle(str(tmp_path / "out.pt"), CheckpointRequest(), None).model.classes == odd.classes


@pytest.mark.parametrize("name", models.names())
def test_every_reference_model_gets_a_new_head_and_loads_again(name: str, odd: Dataset, tmp_path: Path) -> None:
    facts = {"model": name, "classes": list("0123456789"), "preprocess": Preprocess().to_dict()}
    save(tmp_path / "ten.pt", models.build(name, 10), facts)
    start = start_from(str(tmp_path / "ten.pt"), odd, freeze=Freeze())
    assert start.frozen
    assert set(start.facts["head"].items()) >= {("columns", 5), ("copied", 3), ("new", True)}
    head = start.facts["head"]["layer"]
    assert head not in start.frozen.layers
    assert start.module.get_submodule(head).weight.shape[0] == 5
    save(tmp_path / "five.pt", start.module, facts | {"classes": list(odd.classes)})
    assert start_from(str(tmp_path / "five.pt"), odd).notes == ()


SCRIPT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10, kind="linear"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 7, 7), nn.ReLU())
        self.kind = kind
        self.head = nn.Conv2d(4, classes, 1) if kind == "conv" else nn.Linear(64, classes)
        self.last = nn.Linear(classes, classes) if kind == "hidden" else nn.BatchNorm1d(classes)

    def forward(self, image):
        features = self.body(image)
        if self.kind == "conv":
            return self.head(features).mean((2, 3))
        logits = self.head(features.flatten(1))
        if self.kind == "norm":
            return self.last(logits)
        if self.kind == "fixed":
            return logits.reshape(-1, 10)
        return logits
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Weights alone of a class of the user's, and the value of --model that builds it."""
    script = tmp_path / "net.py"
    script.write_text(SCRIPT)

    def make(kind: str) -> tuple[str, str]:
        names: dict[str, type[nn.Module]] = {}
        exec(SCRIPT, names)
        path = tmp_path / f"{kind}.pt"
        torch.save(names["Net"](10, kind).state_dict(), path)
        return str(path), f'{script}:Net(10, "{kind}")'

    return make


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_class_of_the_user_gets_a_new_head_too(
    kind: str, foreign: Callable[[str], tuple[str, str]], odd: Dataset
) -> None:
    path, model = foreign(kind)
    request = CheckpointRequest(model=model, classes=tuple("0123456789"), preprocess=Preprocess())
    start = start_from(path, odd, request=request, freeze=Freeze())
    fitted = train(odd, start=start, settings=SHORT, context=CONTEXT).module
    assert changed(start.module, fitted) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("norm", r"its head cannot be found.*last layer with weights \(last\) does not give the 10 logits"),
        ("fixed", r"its head head cannot be replaced"),
    ],
)
def test_a_head_that_cannot_be_found_or_replaced_is_refused(
    kind: str, message: str, foreign: Callable[[str], tuple[str, str]], odd: Dataset
) -> None:
    path, model = foreign(kind)
    request = CheckpointRequest(model=model, classes=tuple("0123456789"), preprocess=Preprocess())
    with pytest.raises(CheckpointError, match=message) as refused:
        start_from(path, odd, request=request)
    assert "\n" not in str(refused.value)


def test_a_file_without_classes_is_taken_to_read_those_of_the_data(
    foreign: Callable[[str], tuple[str, str]], digits: Dataset, odd: Dataset
) -> None:
    path, model = foreign("linear")
    request = CheckpointRequest(model=model, preprocess=Preprocess())
    assert start_from(path, digits, request=request).notes == ()
    with pytest.raises(CheckpointError, match="answers 10 columns, but there are 5 classes"):
        start_from(path, odd, request=request)
    with pytest.raises(PreprocessUnknown, match="--orientation"):
        start_from(path, odd, request=CheckpointRequest(model=model, classes=tuple("0123456789")))


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"until": "features.conv9"}, "no layer 'features.conv9' to freeze; did you mean features.conv"),
        ({"until": "classifier"}, "leaves no weights to train; name a layer before classifier"),
        ({"epochs": 0}, "freezing for 0 epochs"),
    ],
)
def test_a_freeze_that_cannot_be_meant_is_refused(
    freeze: dict[str, str | int], message: str, checkpoint: Path, odd: Dataset
) -> None:
    with pytest.raises(UsageProblem, match=message):
        start_from(str(checkpoint), odd, freeze=Freeze(**freeze))


def test_a_file_that_holds_no_class_is_refused(checkpoint: Path, odd: Dataset, tmp_path: Path) -> None:
    script = tmp_path / "script.pt"
    torch.jit.trace(models.build("cnn-small", 10).eval(), torch.zeros(2, 1, 28, 28)).save(script)
    with pytest.raises(CheckpointError, match=r"TorchScript.*give the checkpoint"):
        start_from(str(script), odd)
    with pytest.raises(CheckpointError, match="holds the weights of a cnn-small, not of a cnn-deep; leave --model out"):
        start_from(str(checkpoint), odd, request=CheckpointRequest(model="cnn-deep"))
