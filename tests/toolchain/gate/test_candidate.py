"""Candidates that read well here and not elsewhere: columns in another order, another first output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from calibration.listener import Listener, listening
from targets.artifact import file_sha256
from targets.metadata import load_artifact, save_sidecar
from tests.fixtures.small_readers import DIGITS, digits, digits_ridge, linear_reader
from toolchain.core.errors import EvidenceError
from toolchain.gate.candidate import evaluate_file, read_judged_file
from toolchain.gate.collect import gather, save_baseline
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.policy import policy_from
from toolchain.stats.decision import Outcome

POLICY = policy_from({"drop": {"max": "5pp"}})


def _gathered(base: Path, own: Path) -> Evidence:
    return gather(POLICY, *(read_judged_file(path, digits()) for path in (base, own)), digits())


SWAPPED = tuple("0123456798")


def swapped_reader(path: Path) -> Path:
    """Write the usual reader with its last two columns, and their names, exchanged; it reads as well as the other."""
    weights, bias = digits_ridge()
    order = [DIGITS.index(label) for label in SWAPPED]
    return linear_reader(path, linear=(weights[:, order], bias[order]), classes=SWAPPED)


@pytest.mark.parametrize("saved", [False, True], ids=["the files", "what was saved of them"])
def test_a_candidate_whose_columns_are_in_another_order_is_refused_by_name(tmp_path: Path, saved: bool) -> None:
    base, own = linear_reader(tmp_path / "base.onnx"), swapped_reader(tmp_path / "own.onnx")
    names = [base, own]
    assert evaluate_file(own, digits()).accuracy == evaluate_file(base, digits()).accuracy
    if saved:
        save_baseline(base, POLICY, digits(), tmp_path / "base.npz")
        evaluate_file(own, digits()).save(tmp_path / "own.npz")
        names = [tmp_path / "base.npz", tmp_path / "own.npz"]
    with pytest.raises(
        EvidenceError, match=r"own.onnx has its classes in another order than base.onnx: column 8 is '9' there and '8'"
    ):
        _gathered(*names)


def test_a_baseline_in_the_candidates_own_order_judges_it(tmp_path: Path) -> None:
    base, own = swapped_reader(tmp_path / "base.onnx"), swapped_reader(tmp_path / "own.onnx")
    save_baseline(base, POLICY, digits(), tmp_path / "base.npz")
    assert judge(POLICY, _gathered(tmp_path / "base.npz", own))[0].outcome is Outcome.PASS


@pytest.mark.parametrize("first", [True, False], ids=["junk first", "junk last"])
def test_a_file_whose_first_output_is_not_the_judged_one_is_told(first: bool, tmp_path: Path) -> None:
    candidate = linear_reader(tmp_path / "digits.int8.onnx")
    model = onnx.load(candidate)
    model.graph.node.append(onnx.helper.make_node("Neg", ["logits"], ["junk"]))
    outputs = [*model.graph.output, onnx.helper.make_tensor_value_info("junk", onnx.TensorProto.FLOAT, ["n", 10])]
    del model.graph.output[:]
    model.graph.output.extend(reversed(outputs) if first else outputs)
    described = load_artifact(candidate)
    onnx.save(model, candidate)
    save_sidecar(replace(described, sha256=file_sha256(candidate)))
    told: list[str] = []
    with listening(Listener(told.append)):
        read_judged_file(candidate, digits())
    note = "digits.int8.onnx has 2 outputs, and logits is judged; a program that takes the first one reads junk instead"
    assert told == ([note] if first else [])
