"""Evaluations of real files in the real runtime, saved whole, refused where they cannot be judged."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.dataset import Dataset
from calibration.sample import image_hashes
from targets.errors import RunFailed
from targets.metadata import load_artifact
from targets.null import NullTarget
from tests.fixtures.small_readers import described, digits, linear_reader, written
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.evaluation.evaluate import Evaluation, check_classes, evaluate
from toolchain.gate.candidate import evaluate_file, open_session, read_judged_file


def test_every_image_is_answered_by_the_file_itself(tmp_path: Path) -> None:
    path, data = linear_reader(tmp_path / "reader.onnx"), digits()
    seen: list[int] = []
    with open_session(load_artifact(path), threads=1) as session:
        evaluation = evaluate(session, data, batch=100, progress=lambda _label, done, _total: seen.append(done))
        one_by_one = np.concatenate([session.run(data.images[i : i + 1]) for i in range(20)])
    assert len(evaluation) == len(data) == seen[-1]
    assert evaluation.accuracy > 0.8
    assert np.allclose(evaluation.logits[:20], one_by_one, atol=1e-5)
    assert np.array_equal(evaluation.labels, data.labels)
    assert np.array_equal(evaluation.sample_ids, image_hashes(data.images))
    assert (evaluation.artifact_bytes, evaluation.facts.target) == (path.stat().st_size, "ort-cpu")


def test_a_saved_evaluation_comes_back_to_the_bit(tmp_path: Path) -> None:
    evaluation = evaluate_file(linear_reader(tmp_path / "reader.onnx"), digits())
    evaluation.save(tmp_path / "reader.npz")
    back = Evaluation.load(tmp_path / "reader.npz")
    assert back.to_dict() == evaluation.to_dict()
    assert back.preprocess == evaluation.preprocess
    assert back.facts == evaluation.facts
    for name in ("logits", "labels", "sample_ids", "predictions"):
        ours, theirs = getattr(evaluation, name), getattr(back, name)
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()
    with pytest.raises(UsageProblem, match="--force"):
        evaluation.save(tmp_path / "reader.npz")


def test_a_saved_evaluation_of_other_images_is_not_taken(tmp_path: Path) -> None:
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(tmp_path / "old.npz")
    with pytest.raises(EvidenceError, match=r"evaluated on other images \(numbered/test, 4 images"):
        read_judged_file(tmp_path / "old.npz", digits())
    assert len(read_judged_file(tmp_path / "old.npz", None).evaluation) == 4


def _pickled(path: Path) -> None:
    np.savez(path, meta=np.array([{"schema": 1}], dtype=object))


def _without_labels(path: Path) -> None:
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(path)
    with np.load(path) as stored:
        rest = {key: stored[key] for key in stored.files if key != "labels"}
    np.savez(path, **rest)


def _of_another_version(path: Path) -> None:
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["meta"] = np.array(str(arrays["meta"]).replace("evaluation/1", "evaluation/9"))
    np.savez(path, **arrays)


def _truncated(path: Path) -> None:
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"not a zip"), id="no archive"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty file"),
        pytest.param(_pickled, id="pickle"),
        pytest.param(_without_labels, id="missing labels"),
        pytest.param(_truncated, id="truncated"),
    ],
)
def test_what_is_no_saved_evaluation_is_refused(tmp_path: Path, spoil) -> None:
    spoil(tmp_path / "bad.npz")
    with pytest.raises(EvidenceError, match=r"bad\.npz: not a saved evaluation .* make it with"):
        Evaluation.load(tmp_path / "bad.npz")


def test_a_saved_evaluation_of_a_later_version_says_to_update(tmp_path: Path) -> None:
    _of_another_version(tmp_path / "later.npz")
    with pytest.raises(EvidenceError, match=r"later\.npz was made by a later glyphpress .*: update glyphpress$"):
        Evaluation.load(tmp_path / "later.npz")


def test_a_choice_of_the_model_s_classes_is_answered_with_what_helps() -> None:
    data = digits().choose(("1", "2"))
    with pytest.raises(EvidenceError, match="has 2; it answers with all of its classes, so leave the choice out"):
        check_classes("reader.onnx", tuple("0123456789"), data)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        pytest.param("ABC", "ABC", None, id="equal"),
        pytest.param("ABC", "abc", None, id="the other case, once each"),
        pytest.param("ACB", "ABC", None, id="another order"),
        pytest.param("ABa", "ABb", "different classes: class 2 is 'a' in the model", id="both cases, other letter"),
        pytest.param("Aa", "aA", None, id="both cases, another order"),
        pytest.param("AB", "ABC", "reads 2 classes, .* has 3", id="fewer"),
    ],
)
def test_classes_must_be_the_same(ours: str, theirs: str, message: str | None) -> None:
    data = replace(digits(), classes=tuple(theirs))
    if message is None:
        check_classes("reader.onnx", tuple(ours), data)
    else:
        with pytest.raises(EvidenceError, match=message):
            check_classes("reader.onnx", tuple(ours), data)


def test_a_reader_whose_classes_stand_in_another_order_is_read_by_their_names(tmp_path: Path) -> None:
    honest = evaluate_file(linear_reader(tmp_path / "reader.onnx"), digits())
    other = evaluate_file(linear_reader(tmp_path / "other.onnx", classes=tuple("0123456798")), digits())
    assert (other.classes, other.dataset_sha256) == (honest.classes, honest.dataset_sha256)
    assert np.array_equal(other.logits, honest.logits[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 8]])


def test_zero_images_are_no_evaluation(tmp_path: Path) -> None:
    data = digits()
    empty = Dataset(data.images[:0], data.labels[:0], data.classes, "nothing/test", "test", "0" * 64)
    with pytest.raises(EvidenceError, match="no images were evaluated on nothing/test"):
        evaluate_file(linear_reader(tmp_path / "reader.onnx"), empty)
    with pytest.raises(EvidenceError, match="no images were evaluated"):
        written(np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_nan_logits_are_never_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"finite|NaN"):
        evaluate_file(linear_reader(tmp_path / "reader.onnx", nan=True), digits())
    good = written(np.zeros(4, np.int64), np.zeros(4, np.int64))
    logits = good.logits.copy()
    logits[2, 1] = np.inf
    with pytest.raises(EvidenceError, match="NaN or infinite"):
        replace(good, logits=logits)
    with pytest.raises(EvidenceError, match="outside the 10 classes"):
        replace(good, labels=np.array([0, 1, 2, 10]))
    with pytest.raises(EvidenceError, match="do not fit"):
        replace(good, labels=good.labels[:3])


def test_a_target_that_takes_other_files_is_a_usage_error(tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "reader.onnx")
    with pytest.raises(UsageProblem, match=r"litert-cpu runs \.tflite files, not reader\.onnx; take --target ort-cpu"):
        evaluate_file(path, digits(), target="litert-cpu")


def convolutions(path: Path) -> Path:
    """Write an .onnx of 3.7 MMAC, about the reference CNN's, with a dynamic batch and random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"w1": (16, 1, 3, 3), "w2": (32, 16, 3, 3), "w3": (32, 10)}
    weights = [
        numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), k) for k, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "convolutions", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return described(path)


@pytest.mark.slow
def test_evaluation_keeps_up_with_a_bare_loop_over_onnxruntime(tmp_path: Path) -> None:
    """At least 0.8 of its throughput on the same batches: in processor time on one thread, as the machine is shared."""
    import onnxruntime

    path = convolutions(tmp_path / "convolutions.onnx")
    images = np.tile(digits().images, (4, 1, 1))[:2048]
    data = Dataset.of(images, np.arange(2048) % 10, digits().classes, "tiled/test", "test")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = (images[:, None] / 255.0).astype(np.float32)
    spent: dict[str, list[float]] = {"bare": [], "ours": []}
    with open_session(load_artifact(path), threads=1) as session:
        for _ in range(5):
            start = time.process_time()
            for first in range(0, len(pixels), 256):
                bare.run(None, {"image": pixels[first : first + 256]})
            middle = time.process_time()
            evaluate(session, data)
            spent["bare"].append(middle - start)
            spent["ours"].append(time.process_time() - middle)
    assert min(spent["bare"]) / min(spent["ours"]) >= 0.8


def test_the_loop_adds_little_to_what_the_session_takes(tmp_path: Path) -> None:
    """A session that costs nothing leaves the loop's own cost: well under the 40 us an image that a CNN takes."""
    path, images = linear_reader(tmp_path / "reader.onnx"), np.tile(digits().images, (20, 1, 1))
    data = Dataset.of(images, np.tile(digits().labels, 20), digits().classes, "tiled/test", "test")
    answers = np.zeros((256, 10), np.float32)
    with NullTarget(logits=lambda batch: answers[: len(batch)]).open(load_artifact(path)) as session:
        session.run(images[:256])
        start = time.process_time()
        evaluate(session, data)
        spent = time.process_time() - start
    assert spent / len(data) < 10e-6
