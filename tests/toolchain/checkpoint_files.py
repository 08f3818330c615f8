"""Files of trained models as users have them: a class in a file, graphs made with onnx.helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIGITS = tuple("0123456789")

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10, extra=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 13 * 13, classes)

    def forward(self, image):
        return self.head(self.norm(self.conv(image)).relu().flatten(1))

class Pair(Net):
    def forward(self, image):
        return image.flatten(1), super().forward(image)

class Named(Net):
    def forward(self, image):
        return {"features": image.flatten(1), "logits": super().forward(image)}

class Twice(Net):
    def forward(self, image):
        logits = super().forward(image)
        return logits, logits.softmax(1)

class Broken(Net):
    def forward(self, image):
        return super().forward(image) * float("nan")

class Wide(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)

class Raises(Net):
    def __init__(self):
        raise ValueError("no such size")

def make(classes):
    return Net(classes)

number = 3
"""


def net_file(folder: Path) -> Path:
    """Write the user's module and return its path."""
    path = folder / "net.py"
    path.write_text(NET)
    return path


def graph(
    *,
    opset: int = 17,
    nhwc: bool = False,
    flat: bool = False,
    batch: int | str = "N",
    softmax: str | None = None,
    features: bool = False,
    classes: int = 10,
) -> Any:
    """Return an ONNX classifier of glyphs whose inner values bear the names that the press gives to outer ones."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 1, 3, 3)) * 0.3,
        "fc": rng.normal(size=(4 * 13 * 13, classes)) * 0.1,
        "b": rng.normal(size=classes),
    }
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    first = batch if isinstance(batch, int) else -1
    tensors += [numpy_helper.from_array(np.array([first, 676]), "to_flat")]
    nodes, image, shape = [], "input", [1, 28, 28]
    if nhwc:
        nodes.append(helper.make_node("Transpose", [image], ["nchw"], perm=[0, 3, 1, 2]))
        image, shape = "nchw", [28, 28, 1]
    if flat:
        tensors.append(numpy_helper.from_array(np.array([-1, 1, 28, 28]), "to_image"))
        nodes.append(helper.make_node("Reshape", [image, "to_image"], ["square"]))
        image, shape = "square", [784]
    nodes += [
        helper.make_node("Conv", [image, "w"], ["convolved"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["convolved"], ["image"]),
        helper.make_node("Reshape", ["image", "to_flat"], ["logits"]),
        helper.make_node("MatMul", ["logits", "fc"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["score"]),
    ]
    last = "score"
    if softmax:
        nodes.append(helper.make_node(softmax, ["score"], ["probabilities"], axis=1))
        last = "probabilities"
    outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, [batch, classes])]
    if features:
        nodes.append(helper.make_node("Relu", ["logits"], ["features"]))
        outputs.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 676]))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *shape])]
    made = helper.make_model(
        helper.make_graph(nodes, "net", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=4 if opset < 11 else 8 if opset < 19 else 10,
    )
    onnx.checker.check_model(made)
    return made
