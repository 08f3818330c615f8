"""A file is judged as devices use it, one image at a time, wherever it answers otherwise in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.fixtures.small_readers import described, digits, linear_reader
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import evaluate_file


def edited(path: Path, *nodes: onnx.NodeProto, **constants: NDArray[np.int64]) -> Path:
    """Write a reader of the digits whose answers, `raw`, go through more nodes to `logits`."""
    linear_reader(path)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    onnx.save(model, path)
    return described(path)


def wrong_alone(path: Path) -> Path:
    """Write a reader that negates its answers where the batch is one image."""
    return edited(
        path,
        helper.make_node("Shape", ["raw"], ["count"], start=0, end=1),
        helper.make_node("Equal", ["count", "one"], ["alone"]),
        helper.make_node("Neg", ["raw"], ["negated"]),
        helper.make_node("Where", ["alone", "negated", "raw"], ["logits"]),
        one=np.array([1], np.int64),
    )


def centred_by_batch(path: Path) -> Path:
    """Write a reader that takes off the mean of its batch, as a BatchNorm does that was exported while it trained."""
    return edited(
        path,
        helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["raw", "mean"], ["logits"]),
    )


def read(path: Path) -> Evaluation:
    return evaluate_file(path, digits())


def test_a_file_that_reads_wrongly_alone_is_read_alone(tmp_path: Path) -> None:
    evaluation = read(wrong_alone(tmp_path / "reader.onnx"))
    assert evaluation.one_by_one
    assert evaluation.accuracy < 0.1
    assert evaluation.to_dict()["one_by_one"] is True


def test_the_mean_of_a_batch_is_not_what_a_device_finds(tmp_path: Path) -> None:
    evaluation = read(centred_by_batch(tmp_path / "reader.onnx"))
    assert evaluation.one_by_one
    assert not evaluation.logits.any()


def test_most_files_are_read_in_batches(tmp_path: Path) -> None:
    evaluation = read(linear_reader(tmp_path / "reader.onnx"))
    assert not evaluation.one_by_one
    assert "one_by_one" not in evaluation.to_dict()


def test_random_answers_are_refused(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["raw"], ["noise"], scale=0.02)
    path = edited(tmp_path / "reader.onnx", noise, helper.make_node("Add", ["raw", "noise"], ["logits"]))
    with pytest.raises(EvidenceError, match=r"reader\.onnx answers the same images differently each time"):
        read(path)
