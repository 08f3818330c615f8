"""Fit a classifier of scikit-learn to images, and write it as an .onnx file that the press takes like any other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.builtin import SCAN_LEVELS, SCAN_SIDE, are_scans
from calibration.dataset import Dataset, Images, chunks
from targets.preprocess import Preprocess
from toolchain.checkpoint.onnx_graph import BATCH_AXIS, answers, open_session
from toolchain.core import files
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.core.packages import require
from toolchain.core.versions import tool_versions
from toolchain.formats.onnx.estimators import EstimatorFacts, estimator_in
from toolchain.formats.write_artifact import Origin, refuse_model, write_artifact
from toolchain.models.estimator import Estimator
from toolchain.training.train import data_facts, refuse_empty_classes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 18
ML_OPSET = 1
"""The first version of ONNX's operators for such classifiers has all that is needed, and every runtime knows it."""
COMPARED = 2_000
"""Test images on which the file's answers are compared with those of scikit-learn's own `predict`."""
_FLAT = "pixels (float[N, 1, 28, 28] image) => (float[N, 784] X) { X = Flatten(image) }"
_SCAN = """
pixels (float[N, 1, 28, 28] image) => (float[N, 64] X) {
    square = Slice(image, starts, ends, axes)
    mean = AveragePool<kernel_shape = [3, 3], strides = [3, 3]>(square)
    level = Mul(mean, levels)
    whole_level = Round(level)
    X = Flatten(whole_level)
}
"""
"""The 8x8 values from 0 to 16 of which the images of `builtin:digits8x8` are enlarged."""


@dataclass(frozen=True)
class FittedEstimator:
    """A classifier that was fitted and written.

    out: the file. facts: what it says about its training. contents: what it holds. notes: lines for the user.
    """

    out: Path
    facts: dict[str, Any]
    contents: EstimatorFacts
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints, as JSON types."""
        sizes = {"parameters": self.contents.numbers, "contents": self.contents.size}
        return self.facts | {"out": str(self.out), "notes": list(self.notes)} | sizes


def refuse_unfit(path: Path, *, force: bool) -> None:
    """Raise UsageProblem when `fit_estimator` would refuse `path`, PackageMissing without skl2onnx.

    A pickle, as scikit-learn's users save their models, runs code when it is loaded, so only .onnx is written.
    """
    files.refuse_unfit(path, ".onnx", force=force)
    refuse_model(path, force=force)
    require("skl2onnx")


def fit_estimator(
    data: Dataset, *, model: str, settings: Estimator, test: Dataset, out: Path, context: RunContext
) -> FittedEstimator:
    """Fit the classifier `model` to a train split, measure it once on `test`, and write it with its sidecar.

    The graph takes float32 [N, 1, 28, 28] from 0 to 1 and gives `logits` float32 [N, classes]: probabilities, or
    decision scores of a support vector machine; images that are enlarged scans (`are_scans`) become 8x8 values in it.
    The same images, settings and seed give the same bytes. Raises UsageProblem for another suffix than .onnx or a test
    split of other classes, PackageMissing without skl2onnx, EmptyData for a class without images.
    """
    refuse_unfit(out, force=context.force)
    if test.classes != data.classes:
        raise UsageProblem(f"{test.origin} has other classes than {data.origin}; name two splits of one data set")
    refuse_empty_classes(data)
    is_scan = all(are_scans(data.images[part]) for part in chunks(len(data)))
    images, labels, notes = _drawn(data, settings.images, context.seed)
    context.progress(f"fit {model} to {len(images):,} images", 0, 0)
    classifier = settings.build(seed=context.seed, threads=context.threads)
    classifier.fit(_rows(images, is_scan=is_scan), labels)
    proto = _converted(classifier, settings, len(data.classes), is_scan=is_scan)
    contents = estimator_in(proto)
    assert contents, "skl2onnx writes one operator for each of these"
    facts = {
        "model": model,
        "settings": settings.model_dump(mode="json"),
        "seed": context.seed,
        "data": data_facts(data) | {"fitted": len(images)},
        "test": data_facts(test) | _measured(proto, classifier, test, is_scan=is_scan, context=context),
    }
    origin = Origin(
        Preprocess(),
        data.classes,
        "float",
        None,
        tool_versions("scikit-learn", "skl2onnx", "onnx"),
        notes=(f"{model}: {contents.size}, fitted to {len(images):,} images of {data.origin}", *notes),
    )
    content = proto.SerializeToString(deterministic=True)
    write_artifact(out, origin, lambda part: part.write_bytes(content), force=context.force, facts=facts)
    return FittedEstimator(out, facts | {"classes": list(data.classes)}, contents, notes)


def _drawn(data: Dataset, most: int, seed: int) -> tuple[Images, NDArray[np.int64], tuple[str, ...]]:
    """Return the images and labels to fit, and a note where they are not all of them."""
    if len(data) <= most:
        return data.images[:], data.labels, ()
    order = np.random.default_rng(seed).permutation(len(data))
    by_class = [order[data.labels[order] == label] for label in range(len(data.classes))]
    drawn = np.sort(np.concatenate([each[: max(1, most * len(each) // len(data))] for each in by_class]))
    note = (
        f"fitted to {len(drawn):,} of {len(data):,} training images, each class with its share, drawn with seed {seed} "
        "(--images)"
    )
    return data.images[drawn], data.labels[drawn], (note,)


def _rows(images: Images, *, is_scan: bool) -> NDArray[np.float32]:
    """Return what the graph computes of uint8 [N, 28, 28] in front of the classifier: float32 [N, 784] or [N, 64]."""
    pixels = Preprocess().apply(images)
    if not is_scan:
        return pixels.reshape(len(images), -1)
    squares = pixels[:, 0, 2:26, 2:26].reshape(-1, SCAN_SIDE, 3, SCAN_SIDE, 3)
    levels: NDArray[np.float32] = np.round(squares.mean(axis=(2, 4)) * SCAN_LEVELS)
    return levels.reshape(len(images), -1)


def _converted(classifier: Any, settings: Estimator, classes: int, *, is_scan: bool) -> ModelProto:
    """Return the classifier between what makes its rows of pixels and what makes a score for each class."""
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx

    options, scores, columns = settings.conversion(classes)
    row = np.zeros((1, SCAN_SIDE**2 if is_scan else 28**2), np.float32)
    with warnings.catch_warnings():
        # skl2onnx reads attributes of SVC that scikit-learn is about to remove, and that are empty here.
        warnings.simplefilter("ignore", FutureWarning)
        core = to_onnx(
            classifier, row, options={id(classifier): options}, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET}
        ).graph
    label, answer = (value.name for value in core.output)
    for node in core.node:
        node.output[:] = [{label: "label", answer: "answers"}.get(name, name) for name in node.output]
    front = _front(is_scan=is_scan)
    graph = helper.make_graph(
        [*front.node, *core.node, *scores.node],
        "glyphpress",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH_AXIS, 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH_AXIS, classes])],
        [*front.initializer, *core.initializer, *scores.initializer],
        value_info=[helper.make_tensor_value_info("answers", TensorProto.FLOAT, [BATCH_AXIS, columns])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="glyphpress")


def _front(*, is_scan: bool) -> GraphProto:
    """Return the graph from `image` to the rows `X` of the classifier, as `_rows` makes them."""
    from onnx import numpy_helper, parser

    graph = parser.parse_graph(_SCAN if is_scan else _FLAT)
    if is_scan:
        constants = {
            "starts": np.array([2, 2]),
            "ends": np.array([26, 26]),
            "axes": np.array([2, 3]),
            "levels": np.array(SCAN_LEVELS, np.float32),
        }
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return graph


def _measured(
    proto: ModelProto, classifier: Any, test: Dataset, *, is_scan: bool, context: RunContext
) -> dict[str, Any]:
    """Return how many test images the graph reads, and on how many of the first it answers as scikit-learn does not."""
    session = open_session(proto)
    right, compared, differing = 0, 0, 0
    for images, labels in _batches(test, context):
        predicted = answers(session, Preprocess().apply(images))["logits"].argmax(axis=1)
        right += int((predicted == labels).sum())
        if compared < COMPARED:
            expected = classifier.predict(_rows(images, is_scan=is_scan))
            compared, differing = compared + len(images), differing + int((predicted != expected).sum())
    return {"right": right, "accuracy": right / len(test), "compared": compared, "differing": differing}


def _batches(data: Dataset, context: RunContext) -> Iterator[tuple[Images, NDArray[np.int64]]]:
    for part in chunks(len(data), 500):
        yield data.images[part], data.labels[part]
        context.progress(f"read {data.origin}", min(part.stop, len(data)), len(data))
