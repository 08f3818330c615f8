"""Small readers for tests: real .onnx files that read the built-in digits, and evaluations written by hand."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Dataset
from calibration.load import load
from targets.artifact import Artifact, file_sha256
from targets.metadata import describe, save_sidecar
from targets.preprocess import Preprocess
from targets.session import RuntimeFacts
from toolchain.evaluation.evaluate import Evaluation

DIGITS = tuple("0123456789")
FACTS = RuntimeFacts("null", "scripted", "1", "none", 1)


@cache
def digits() -> Dataset:
    """The built-in test split."""
    return load("builtin:digits", "test")


Linear = tuple[NDArray[np.float32], NDArray[np.float32]]


def ridge(train: Dataset) -> Linear:
    """Weights [784, K] and bias [K] of a ridge regression on the classes."""
    pixels = np.c_[train.images.reshape(len(train), -1) / 255.0, np.ones(len(train))]
    normal = pixels.T @ pixels + 10.0 * np.eye(pixels.shape[1])
    solved = np.linalg.solve(normal, pixels.T @ np.eye(len(train.classes))[train.labels])
    return solved[:-1].astype(np.float32), solved[-1].astype(np.float32)


@cache
def _digits_ridge() -> Linear:
    return ridge(load("builtin:digits", "train"))


def linear_reader(
    path: Path,
    *,
    linear: Linear | None = None,
    step: float = 0.0,
    dead: tuple[int, ...] = (),
    classes: tuple[str, ...] = DIGITS,
    nan: bool = False,
) -> Path:
    """Write a ridge regression, by default on the built-in digits, as .onnx with its sidecar.

    step rounds the weights, as quantization does. dead: columns whose scale was lost, so that they are never
    answered. nan: a weight is not finite.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights, bias = (array.copy() for array in linear or _digits_ridge())
    if step:
        weights = (np.round(weights / step) * step).astype(np.float32)
    weights[:, list(dead)] *= 0.01
    bias[list(dead)] -= 1.0
    if nan:
        weights[300, 3] = np.nan
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["logits"])],
        "reader",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return described(path, classes)


def described(path: Path, classes: tuple[str, ...] = DIGITS) -> Path:
    """Write the sidecar of an .onnx that takes 0 to 1 upright."""
    inputs, outputs = describe(path)
    save_sidecar(Artifact(path, "onnx", file_sha256(path), inputs, outputs, Preprocess(), classes))
    return path


def written(
    predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    classes: tuple[str, ...] = DIGITS,
    name: str = "reader.onnx",
    size: int = 1000,
) -> Evaluation:
    """An evaluation that answered `predictions`, on images that are numbered."""
    return Evaluation(
        artifact=name,
        artifact_sha256=hashlib.sha256(name.encode()).hexdigest(),
        artifact_bytes=size,
        facts=FACTS,
        preprocess=Preprocess(),
        origin="numbered/test",
        dataset_sha256="0" * 64,
        classes=classes,
        logits=np.eye(len(classes), dtype=np.float32)[predictions],
        labels=np.asarray(labels, np.int64),
        sample_ids=np.arange(len(labels)).astype("S32"),
    )


def pair(lost: int, gained: int, count: int, *, size: int = 250) -> tuple[Evaluation, Evaluation]:
    """A baseline and a candidate that differ on `lost` + `gained` of `count` images; `lost` ones are of class 3."""
    labels = np.arange(count) % 10
    labels[:lost] = 3
    before, after = labels.copy(), labels.copy()
    after[:lost] = 8
    wrong = slice(lost, lost + gained)
    before[wrong] = (labels[wrong] + 1) % 10
    return written(before, labels, name="float.onnx"), written(after, labels, name="int8.onnx", size=size)
