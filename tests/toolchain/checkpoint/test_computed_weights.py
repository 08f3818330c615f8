"""A state_dict whose weights are computed anew at every run, read into the class without that."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.checkpoint_files import DIGITS
from tests.fixtures.lazy import torch
from toolchain.checkpoint import load
from toolchain.checkpoint.source import build_from, parse_source

# As many channels into the transposed convolution as out, so that shapes do not say over which axis it is normed.
PLAIN = (
    "from torch import nn\n"
    "def make():\n"
    "    layers = nn.Conv2d(1, 8, 3, 2), nn.ConvTranspose2d(8, 8, 3, bias=False)\n"
    "    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1800, 10))\n"
)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "row23-weight-norm": ("parametrizations.weight_norm", {}),
    "row23-weight-norm-of-all": ("parametrizations.weight_norm", {"dim": None}),
    "row23-spectral-norm": ("parametrizations.spectral_norm", {}),
    "row23-old-weight-norm": ("weight_norm", {}),
    "row23-old-weight-norm-of-all": ("weight_norm", {"dim": None}),
    "row23-old-spectral-norm": ("spectral_norm", {}),
    "row23-mask": ("prune.l1_unstructured", {"name": "weight", "amount": 0.3}),
}


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights_go_into_the_plain_class(way: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    source = f"{tmp_path}/net.py:make"
    torch.manual_seed(0)
    net, images = build_from(parse_source(source)), torch.rand(4, 1, 28, 28)
    name, settings = WAYS[way]
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
