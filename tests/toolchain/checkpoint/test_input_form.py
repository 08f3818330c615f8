"""Models that want 784 values, three channels or 32x32 pixels: every file made of them takes 1x28x28."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.load import load as load_images
from tests.fixtures.lazy import torch
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.checkpoint.float_model import forward
from toolchain.core.errors import CheckpointError

SOURCE = """
import torch
from torch import nn

class Conv(nn.Module):
    def __init__(self, channels=1, side=28, grouped=False):
        super().__init__()
        self.conv = nn.Conv2d(channels, 9, 5, stride=3, groups=channels if grouped else 1)
        self.fc = nn.Linear(9 * ((side - 5) // 3 + 1) ** 2, 10)

    def forward(self, image):
        return self.fc(self.conv(image).relu().flatten(1))

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, values):
        return self.fc(values)
"""


def larger(images: Any, way: str) -> Any:
    """Return images of 32x32 as training scripts make them."""
    if way == "padded":
        return torch.nn.functional.pad(images, (2, 2, 2, 2))
    return torch.nn.functional.interpolate(images, (32, 32), mode="bilinear")


def normalized(images: Any, means: Any = (0.485, 0.456, 0.406), stds: Any = (0.229, 0.224, 0.225)) -> Any:
    """Return images as three channels, normalized as those of ImageNet are, or by other numbers."""
    means, stds = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (means, stds))
    return (images.repeat(1, 3, 1, 1) - means) / stds


FORMS: dict[str, tuple[str, Any, str]] = {
    "flat": ("Flat()", lambda x: x.flatten(1), "takes 784 values: images are flattened inside"),
    "three": ("Conv(3)", lambda x: x.repeat(1, 3, 1, 1), "the weights of its first layer are summed"),
    "grouped": ("Conv(3, grouped=True)", lambda x: x.repeat(1, 3, 1, 1), "images are repeated inside"),
    "padded": ("Conv(1, 32)", lambda x: larger(x, "padded"), "takes 32x32 pixels: images are padded inside"),
    "resized": ("Conv(1, 32)", lambda x: larger(x, "resized"), "takes 32x32 pixels: images are resized inside"),
    "both": (
        "Conv(3, 32)",
        lambda x: larger(x, "resized").repeat(1, 3, 1, 1),
        "takes 32x32 pixels of three channels: images are resized inside",
    ),
    "imagenet": (
        "Conv(3)",
        normalized,
        "repeated and normalized inside, by ImageNet's mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225",
    ),
    "imagenet32": (
        "Conv(3, 32)",
        lambda x: normalized(larger(x, "resized")),
        "images are resized, repeated and normalized inside, by ImageNet's mean 0.485, 0.456, 0.406 and std 0.229, "
        "0.224, 0.225",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks trained for a moment on digits in each form, with their source."""
    place = tmp_path_factory.mktemp("forms")
    (place / "net.py").write_text(SOURCE)
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    data = load_images("builtin:digits", "train")
    images, labels = torch.from_numpy(np.asarray(data.images)[:, None] / np.float32(255)), torch.from_numpy(data.labels)
    for name, (call, form, _) in FORMS.items():
        torch.manual_seed(0)
        net = eval(call, names)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(40):
            chosen = torch.randint(0, len(labels), (128,))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(form(images[chosen])), labels[chosen]).backward()
            optimizer.step()
        torch.save(net.state_dict(), place / f"{name}.pt")
    return place


@pytest.mark.parametrize("name", FORMS)
def test_the_form_is_found_and_answers_are_those_of_the_model_itself(name: str, folder: Path) -> None:
    call, form, note = FORMS[name]
    data = load_images("builtin:digits", "train")
    settled = settle(str(folder / f"{name}.pt"), CheckpointRequest(model=f"{folder}/net.py:{call}"), data)
    assert any(line.endswith(note) for line in settled.model.history)
    assert settled.model.preprocess.orientation == "upright"
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    net = eval(call, names).eval()
    net.load_state_dict(torch.load(folder / f"{name}.pt"))
    images = np.asarray(data.images[:50, None] / np.float32(255))
    with torch.no_grad():
        wanted = net(form(torch.from_numpy(images))).numpy()
    assert np.allclose(forward(settled.model)(images), wanted, atol=1e-4)


def test_without_images_nobody_can_tell_padded_from_resized(folder: Path) -> None:
    from targets.preprocess import Preprocess

    request = CheckpointRequest(
        model=f"{folder}/net.py:Conv(1, 32)", classes=tuple("0123456789"), preprocess=Preprocess()
    )
    with pytest.raises(CheckpointError, match=r"to which images may be padded or resized; .* give --data"):
        settle(str(folder / "padded.pt"), request, None)
    data = load_images("builtin:digits", "train")
    known = settle(str(folder / "resized.pt"), request, data)
    assert known.finding is None
    assert "takes 32x32 pixels: images are resized inside" in known.model.history


def test_numbers_of_each_channel_that_the_checkpoint_stores_are_taken(folder: Path, tmp_path: Path) -> None:
    from targets.preprocess import Preprocess

    means, stds = (0.1, 0.6, 0.9), (0.5, 0.2, 0.6)
    state = torch.load(folder / "three.pt")
    # A network that was trained on equal channels, as one that wants them as these numbers make them.
    weight = state["conv.weight"]
    scales, shift = torch.tensor(stds).reshape(1, 3, 1, 1), torch.tensor(means).reshape(1, 3, 1, 1)
    state["conv.bias"] = state["conv.bias"] + (weight * shift).sum((1, 2, 3))
    state["conv.weight"] = weight * scales
    path, source = tmp_path / "own.pt", f"{folder}/net.py:Conv(3)"
    torch.save({"state_dict": state, "config": {"mean": [25.5, 153, 229.5], "std": [127.5, 51, 153]}}, path)
    data = load_images("builtin:digits", "train")
    known = CheckpointRequest(model=source, preprocess=Preprocess(), classes=tuple("0123456789"))
    three = settle(str(folder / "three.pt"), CheckpointRequest(model=source), data).model
    images = np.asarray(data.images[:50, None] / np.float32(255))
    for settled in (settle(str(path), CheckpointRequest(model=source), data), settle(str(path), known, None)):
        assert any("by the checkpoint's mean 0.1, 0.6, 0.9 and std 0.5, 0.2" in line for line in settled.model.history)
        assert not any("not taken" in line for line in settled.model.history)
        assert np.allclose(forward(settled.model)(images), forward(three)(images), atol=1e-3)


def test_a_preprocess_from_options_is_kept_unless_the_images_speak_against_it(folder: Path) -> None:
    from targets.preprocess import Preprocess

    data = load_images("builtin:digits", "train")
    for name, inside in (("imagenet", True), ("three", False)):
        request = CheckpointRequest(model=f"{folder}/net.py:Conv(3)", preprocess=Preprocess())
        history = settle(str(folder / f"{name}.pt"), request, data).model.history
        assert any("normalized inside" in line for line in history) is inside
    request = CheckpointRequest(model=f"{folder}/net.py:Conv(3)", preprocess=Preprocess(mean=0.45, std=0.225))
    settled = settle(str(folder / "imagenet.pt"), request, data)
    assert any("are summed" in line for line in settled.model.history)


def test_other_sizes_are_refused_with_what_was_tried(folder: Path) -> None:
    data = load_images("builtin:digits", "train")
    path = folder / "large.pt"
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    torch.save(names["Conv"](1, 64).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"nor \[N, 784\], \[N, 3, 28, 28\] or 32x32 pixels; give a model"):
        settle(str(path), CheckpointRequest(model=f"{folder}/net.py:Conv(1, 64)"), data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three", "imagenet", "resized"])
def test_from_the_file_to_the_gate(name: str, folder: Path, tmp_path: Path, glyphpress: Any) -> None:
    call = FORMS[name][0]
    words = ("--data", "builtin:digits", "--recipe", "static-int8", "--policy", "smoke", "--seconds", "0.1s")
    source, out = f"{folder}/net.py:{call}", tmp_path / "out"
    ran = glyphpress("press", folder / f"{name}.pt", "--model", source, *words, "--out", out)
    assert ran.code == 0, ran.err
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert {row["format"] for row in rows} == {"onnx", "tflite"}
    assert min(row["accuracy"] for row in rows) > 0.8
    if name == "three":
        assert "Expand" not in glyphpress("inspect", out / "three.float.onnx").out
