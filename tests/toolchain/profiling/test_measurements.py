"""What is slower or larger than float is marked, with the reason; where nothing beats float, float is given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ort

from calibration.dataset import Dataset
from calibration.sample import draw
from targets.artifact import Artifact, Format
from targets.catalog import default_for, get, isa
from targets.host.machine import multiplies_bytes
from targets.metadata import adopt
from targets.preprocess import Preprocess
from targets.session import Instructions, RuntimeFacts, TimingPlan
from tests.fixtures.timings import flat_timings
from toolchain.commands.profile import _with_ratios
from toolchain.evaluation.compare import Pairs
from toolchain.evaluation.evaluate import evaluate
from toolchain.evaluation.timings import LatencyRatio
from toolchain.gate.gate import Evidence
from toolchain.gate.policy import policy_from
from toolchain.profiling.latency import Profile, ProfileRow
from toolchain.profiling.measurements import UNSEEN, MeasuredFile, reasons_for
from toolchain.quantize import quantize
from toolchain.recipe import Quantize
from toolchain.report.rows import measured_rows

POLICY = policy_from({"drop": {"max": "0.3pp"}})


@pytest.fixture(scope="module")
def base(floats: dict[Format, Artifact]) -> Artifact:
    return floats["onnx"]


@pytest.fixture(scope="module")
def quantized(base: Artifact, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """What onnxruntime's own tools make of the float file by the ways that people complain of."""
    folder = tmp_path_factory.mktemp("regretted")
    pixels = base.preprocess.apply(digits.images[:64])

    class Reader(ort.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, np.ndarray]] = iter([{base.inputs[0].name: pixels}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    kinds = ort.QuantType
    signed = {"activation_type": kinds.QInt8, "weight_type": kinds.QInt8}
    ort.quantize_dynamic(base.path, folder / "dynamic.onnx", weight_type=kinds.QUInt8)
    ort.quantize_static(
        base.path, folder / "signed.onnx", Reader(), quant_format=ort.QuantFormat.QOperator, **signed
    )  # fmt: skip
    int4 = {"activation_type": kinds.QUInt8, "weight_type": kinds.QInt4}
    ort.quantize_static(base.path, folder / "int4.onnx", Reader(), quant_format=ort.QuantFormat.QDQ, **int4)
    return {path.stem: adopt(path, preprocess=base.preprocess, classes=base.classes) for path in folder.glob("*.onnx")}


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("dynamic", "ConvInteger (6): ONNX Runtime has no fast kernel"),
        ("dynamic", "DynamicQuantizeLinear"),
        ("dynamic", "nodes more than the"),
        ("signed", "signed activations (int8) in QLinearConv (6)"),
        ("int4", "int4 (7) is fused into no kernel"),
        ("int4", "float between integers: Conv"),
    ],
)
def test_the_reason_is_found_in_the_graph(
    which: str, said: str, quantized: dict[str, Artifact], base: Artifact
) -> None:
    found = reasons_for(quantized[which], base, get("ort-cpu"), slower=True, larger=False)
    assert any(reason.startswith(said) or said in reason for reason in found), found


def test_a_file_without_fault_is_not_accused(base: Artifact) -> None:
    assert reasons_for(base, base, get("ort-cpu"), slower=False, larger=False) == ()
    (unseen,) = reasons_for(base, base, get("ort-cpu"), slower=True, larger=False)
    assert unseen.startswith(f"{UNSEEN}; the slowest is ")

    (told,) = reasons_for(base, base, get("ort-cpu"), slower=False, larger=True)
    assert f"of its {base.size:,} bytes" in told
    assert "float32" in told


@pytest.fixture(scope="module")
def static(
    floats: dict[Format, Artifact], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[Format, Artifact]:
    """Our own int8 file of each format."""
    folder, images = tmp_path_factory.mktemp("static"), draw(digits, 64, seed=0)
    kinds: tuple[Format, ...] = ("onnx", "tflite")
    step = Quantize(scheme="static-int8")
    return {kind: quantize(floats[kind], step, images, folder / f"int8.{kind}", recipe="int8") for kind in kinds}


def planted(sha256: str, median: int) -> object:
    """Timings of twenty rounds, as if measured."""
    return replace(flat_timings(sha256, median), blocks=tuple(range(0, 1000, 50)))


def test_the_slow_file_of_a_press_is_marked_with_its_reason(
    base: Artifact, quantized: dict[str, Artifact], digits_test: Dataset
) -> None:
    artifacts = [base, replace(quantized["dynamic"], recipe="dynamic")]
    readings = []
    for artifact in artifacts:
        with default_for("onnx").open(artifact) as session:
            readings.append(evaluate(session, digits_test))
    taken = [planted(one.sha256, median) for one, median in zip(artifacts, (85_000, 554_000), strict=True)]
    ratio = LatencyRatio.of(taken[1], taken[0])
    profile = Profile(
        (ProfileRow(artifacts[0], taken[0], None), ProfileRow(artifacts[1], taken[1], ratio)), TimingPlan(), 20, 0
    )
    proof = [Evidence(Pairs.of(*readings))]
    first, slow = measured_rows(artifacts, readings, proof, POLICY, times=profile, counts=[None, None])
    assert (first.slower, first.reasons, first.own_ratio) == (False, (), 1.0)
    assert slow.slower
    assert not slow.larger
    assert slow.own_ratio == pytest.approx(554 / 85)
    assert slow.reasons[0].startswith("ConvInteger (6)")
    assert slow.packed is not None
    assert slow.packed < slow.bytes


def test_a_profile_marks_what_is_slower_or_larger_than_the_first(
    base: Artifact, quantized: dict[str, Artifact]
) -> None:
    order = [(quantized["signed"], 400_000), (base, 85_000), (quantized["dynamic"], 554_000)]
    cells = []
    for one, median in order:
        taken = planted(one.sha256, median)
        cells.append(MeasuredFile(one, "ort-cpu", facts=taken.facts, timings=taken))
    _, floating, slow = _with_ratios(cells, 0)
    assert (floating.slower, floating.larger) == (False, True)
    assert "float32" in floating.reasons[0]
    assert slow.slower
    assert slow.to_dict()["reasons"] == list(slow.reasons)
    assert slow.reasons[0].startswith("ConvInteger (6)")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(("avx2", "fma"), "no VNNI", id="row62-x86 without VNNI"),
        pytest.param(("asimd",), "no dot-product instructions (asimddp)", id="row62-Arm without dot product"),
        pytest.param(("avx2", "avx512_vnni"), None, id="VNNI"),
        pytest.param(("asimd", "asimddp"), None, id="dot product"),
        pytest.param((), None, id="not known"),
    ],
)
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_processor_without_instructions_for_int8_is_the_reason(
    kind: Format,
    flags: tuple[str, ...],
    said: str | None,
    static: dict[Format, Artifact],
    floats: dict[Format, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = default_for(kind)
    monkeypatch.setattr(target, "isa", lambda: flags)
    reasons = reasons_for(static[kind], floats[kind], target, slower=True, larger=False)
    assert any(said in reason for reason in reasons) if said else not any("processor" in one for one in reasons)
    # A float file multiplies no bytes, whatever the processor can do.
    assert not any(
        "processor" in one for one in reasons_for(floats[kind], floats[kind], target, slower=True, larger=False)
    )


def test_row62_the_flags_of_an_emulated_processor_tell_whether_it_multiplies_bytes() -> None:
    assert not multiplies_bytes(isa("arm64:cortex-a72"))
    assert multiplies_bytes(isa("arm64:cortex-a76"))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_row7_where_instructions_were_counted_the_reason_is_of_that_processor(
    kind: Format, static: dict[Format, Artifact], floats: dict[Format, Artifact], digits_test: Dataset
) -> None:
    artifacts = [floats[kind], static[kind]]
    seen = []
    for artifact in artifacts:
        with default_for(kind).open(artifact) as session:
            seen.append(evaluate(session, digits_test))
    facts = RuntimeFacts("arm64:cortex-a72", "a runtime", "1", "QEMU", 1, device_type="emulated")
    counts = [Instructions(one.sha256, facts, (number,), 1) for one, number in zip(artifacts, (100, 150), strict=True)]
    evidence = [Evidence(Pairs.of(*seen))]
    _, row = measured_rows(artifacts, seen, evidence, POLICY, times=None, counts=counts)
    assert any("no dot-product instructions" in reason for reason in row.reasons)
    assert not any("most is" in reason for reason in row.reasons), "that was timed on this machine"


def test_row62_gelu_outside_the_integer_part_is_the_reason(tmp_path: Path, digits: Dataset) -> None:
    artifact = with_gelu(tmp_path / "gelu.float.onnx")
    images = draw(digits, 64, seed=0)
    own = quantize(artifact, Quantize(scheme="static-int8"), images, tmp_path / "gelu.onnx", recipe="static-int8")
    (reason, *_) = reasons_for(own, artifact, get("ort-cpu"), slower=True, larger=False)
    assert "Erf (1)" in reason
    assert "this is GELU" in reason


def with_gelu(path: Path) -> Artifact:
    """Two layers with a GELU between them, as torch writes it."""
    random = np.random.default_rng(0)
    arrays = {
        "first": random.standard_normal((784, 16)).astype(np.float32) / 28,
        "second": random.standard_normal((16, 10)).astype(np.float32) / 4,
        **{name: np.array(value, np.float32) for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))},
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["x"]),
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["shifted"]),
        helper.make_node("Mul", ["x", "shifted"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["gelu"]),
        helper.make_node("MatMul", ["gelu", "second"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", 1, 28, 28))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 10))
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "gelu", [image], [logits], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return adopt(path, preprocess=Preprocess(), classes=tuple("0123456789"))
