"""Weights read into a class: those that are computed anew at every run, and files with very many names."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from tests.fixtures.checkpoint_files import DIGITS
from tests.fixtures.lazy import nn, torch
from toolchain.checkpoint import load
from toolchain.checkpoint.computed_weights import computed_names
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.checkpoint.state import find_state, fit_state, tensors_in
from toolchain.core.errors import CheckpointError, UsageProblem

# As many channels into the transposed convolution as out, so that shapes do not say over which axis it is normed.
PLAIN = (
    "from torch import nn\n"
    "def make():\n"
    "    layers = nn.Conv2d(1, 8, 3, 2), nn.ConvTranspose2d(8, 8, 3, bias=False)\n"
    "    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1800, 10))\n"
)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "row23-weight-norm": ("parametrizations.weight_norm", {}),
    "row23-weight-norm-of-all": ("parametrizations.weight_norm", {"dim": None}),
    "row23-spectral-norm": ("parametrizations.spectral_norm", {}),
    "row23-old-weight-norm": ("weight_norm", {}),
    "row23-old-weight-norm-of-all": ("weight_norm", {"dim": None}),
    "row23-old-spectral-norm": ("spectral_norm", {}),
    "row23-mask": ("prune.l1_unstructured", {"name": "weight", "amount": 0.3}),
}


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights_go_into_the_plain_class(form: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    source = f"{tmp_path}/net.py:make"
    torch.manual_seed(0)
    net, images = build_from(parse_source(source)), torch.rand(4, 1, 28, 28)
    name, settings = FORMS[form]
    for index in (0, 1, 3):
        reduce(getattr, name.split("."), torch.nn.utils)(net[index], **settings)
    net.train()(images)
    net.eval()
    torch.save({f"{prefix}{key}": value for key, value in net.state_dict().items()}, tmp_path / "net.pt")
    model = load(str(tmp_path / "net.pt"), model=source, classes=DIGITS).model
    assert model.module is not None
    assert torch.equal(model.module(images), net(images))
    assert "weights computed once and kept: 0.weight, 1.weight, 3.weight" in model.history
    assert model.module.state_dict().keys() == {"0.weight", "0.bias", "1.weight", "3.weight", "3.bias"}


COUNT = 20_000


def _flat() -> int:
    tensors = {f"layers.{number}.weight": torch.zeros(1) for number in range(COUNT)}
    return len(find_state(tensors, "net.pt", None).tensors)


def _nested() -> int:
    tensors = {f"layers.{number}": {"weight": torch.zeros(1)} for number in range(COUNT)}
    return len(find_state(tensors, "net.pt", None).tensors) * COUNT


def _one_of_many() -> int:
    tensors = {f"layers.{number}.weight": torch.ones(1, 1) for number in range(COUNT)}
    fitted = fit_state(nn.Linear(1, 1, bias=False), tensors, "net.pt")
    assert "--weights layers.1 (or layers.2" in fitted.notes[0]
    return len(fitted.tensors) * COUNT


def _parametrized() -> int:
    parts = ("original0", "original1")
    names = [f"{number}.parametrizations.weight.{part}" for number in range(COUNT) for part in parts]
    return len(computed_names(dict.fromkeys(names, torch.zeros(1))))


# They took minutes when the time grew with the square of the number of names.
@pytest.mark.parametrize("read", [_flat, _nested, _one_of_many, _parametrized])
def test_20000_tensors_are_read_in_seconds(read: Callable[[], int]) -> None:
    before = process_time()
    assert read() == COUNT
    assert process_time() - before < 5


def _normed() -> Any:
    """Return a module with running statistics, which averages of parameters lack."""
    return nn.ModuleDict({"norm": nn.BatchNorm1d(784), "head": nn.Linear(784, 10)})


def _file_tensors(average: dict[str, Any], **others: Any) -> dict[str, Any]:
    return tensors_in({"ema": {"decay": 0.99, "shadow": average}, **others}, "net.pt")


def test_an_average_of_parameters_takes_the_other_buffers_from_the_raw_weights() -> None:
    raw, module = _normed().state_dict(), _normed()
    raw["norm.running_mean"] += 3
    average = {name: value.detach() + 1 for name, value in _normed().named_parameters()}
    fitted = fit_state(module, _file_tensors(average, model=raw), "net.pt", "ema")
    assert torch.equal(module["head"].weight, average["head.weight"])
    assert torch.equal(module["norm"].running_mean, raw["norm.running_mean"])
    assert fitted.notes == (
        "weights taken from 'ema.shadow'",
        "the weights under 'ema.shadow' lack norm.running_mean, norm.running_var: taken from 'model'",
    )
    with pytest.raises(CheckpointError, match=r"'ema.shadow' lack norm.running_mean.*save the whole state_dict\(\)"):
        fit_state(module, _file_tensors(average), "net.pt", "ema")
    with pytest.raises(CheckpointError, match=r"missing norm.bias, .*, head.weight"):
        fit_state(module, _file_tensors({"norm.weight": average["norm.weight"]}, model=raw), "net.pt", "ema")


def test_a_part_of_a_key_is_enough_where_only_one_set_of_weights_has_it() -> None:
    raw, averaged, module = _normed().state_dict(), _normed().state_dict(), _normed()
    state = {f"model.{name}": value for name, value in raw.items()}
    state |= {f"ema_model.module.{name}": value for name, value in averaged.items()}
    tensors = tensors_in({"state_dict": state}, "net.ckpt")
    for key in ("ema_model", "ema_model.module"):
        assert fit_state(module, tensors, "net.ckpt", key).notes == (
            "weights taken from 'state_dict.ema_model.module'",
        )
        assert torch.equal(module["head"].weight, averaged["head.weight"])
    with pytest.raises(UsageProblem, match=r"it has them under state_dict.model, state_dict.ema_model.module"):
        fit_state(module, tensors, "net.ckpt", "ema")
