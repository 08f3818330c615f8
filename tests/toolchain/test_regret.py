"""What is slower or larger than float is marked, with the reason; where nothing beats float, float is given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from onnxruntime import quantization as ort

from calibration.dataset import Dataset
from targets.artifact import Artifact, Format, adopt
from targets.catalog import default_for
from targets.target import TimingPlan
from tests.toolchain.readers import pair
from tests.toolchain.test_report import timings
from toolchain.profiling.cells import Cell
from toolchain.profiling.regret import UNSEEN, regrets
from toolchain.profiling.survey import _with_ratios
from toolchain.report.report import Row
from toolchain.report.rows import measured_rows
from toolchain.report.table import remarks
from toolchain.report.winner import chosen
from toolchain.verdict.compare import compare
from toolchain.verdict.evaluate import evaluate
from toolchain.verdict.evidence import Evidence
from toolchain.verdict.gate import judge
from toolchain.verdict.latency import Profile, ProfileRow
from toolchain.verdict.pairs import Pairs
from toolchain.verdict.policy import policy_from
from toolchain.verdict.ratio import LatencyRatio

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
    found = regrets(quantized[which], base, "ort-cpu", slower=True, larger=False)
    assert any(reason.startswith(said) or said in reason for reason in found), found


def test_a_file_without_fault_is_not_accused(base: Artifact) -> None:
    assert regrets(base, base, "ort-cpu", slower=False, larger=False) == ()
    assert regrets(base, base, "ort-cpu", slower=True, larger=False) == (UNSEEN,)

    (told,) = regrets(base, base, "ort-cpu", slower=False, larger=True)
    assert f"of its {base.size:,} bytes" in told
    assert "float32" in told


def planted(sha256: str, median: int) -> object:
    """Timings of twenty rounds, as if measured."""
    return replace(timings(sha256, median), blocks=tuple(range(0, 1000, 50)))


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
        cells.append(Cell(one, "ort-cpu", facts=taken.facts, timings=taken))
    _, floating, slow = _with_ratios(cells, 0)
    assert (floating.slower, floating.larger) == (False, True)
    assert "float32" in floating.reasons[0]
    assert slow.slower
    assert slow.to_dict()["reasons"] == list(slow.reasons)
    assert slow.reasons[0].startswith("ConvInteger (6)")


def candidate(
    lost: int, *, size: int = 163_400, ratio: float = 0.68, name: str = "int8.onnx"
) -> tuple[Row, Row, Evidence]:
    """The baseline and a candidate with planted size and cost, and the evidence on its reading."""
    floating, own = pair(lost, 5, 18_800, size=size)
    floating, own = replace(floating, artifact_bytes=611_000), replace(own, artifact=name)
    times = timings(floating.artifact_sha256, 99_000), timings(own.artifact_sha256, int(99_000 * ratio))
    proof = Evidence(Pairs.of(floating, own))
    row = Row.of(
        own,
        format="onnx",
        recipe=name,
        comparison=compare(floating, own),
        timings=times[1],
        ratio=LatencyRatio(ratio, 0.99 * ratio, 1.01 * ratio, 20),
        verdicts=judge(POLICY, proof),
    )
    return Row.of(floating, format="onnx", recipe="float", timings=times[0]), row, proof


def winner(*made: tuple[Row, Row, Evidence]) -> tuple[str, tuple[str, ...]]:
    rows, notes = chosen([made[0][0], *(row for _, row, _ in made)], [proof for _, _, proof in made], POLICY)
    (best,) = [row for row in rows if row.winner]
    return best.name, notes


def test_the_fastest_that_passes_wins() -> None:
    fast = candidate(20, ratio=0.5, name="fast.onnx")
    assert winner(candidate(20, ratio=0.7), fast) == ("fast.onnx", ())


@pytest.mark.parametrize(
    "made",
    [
        candidate(20, size=700_000, ratio=1.3),
        candidate(20, size=611_000, ratio=1.0),
        candidate(3_000, ratio=0.3),
    ],
    ids=["larger and slower", "just the same", "reads worse"],
)
def test_float_is_given_back_where_nothing_beats_it(made: tuple[Row, Row, Evidence]) -> None:
    best, (note,) = winner(made)
    assert best == "float.onnx"
    assert "float is given back: ship float.onnx" in note


def test_a_file_without_regret_goes_before_a_faster_one_that_is_larger() -> None:
    larger = candidate(20, size=700_000, ratio=0.5, name="larger.onnx")
    assert larger[1].larger
    assert winner(larger, candidate(20, ratio=0.7))[0] == "int8.onnx"
    assert winner(larger)[0] == "larger.onnx"


def test_what_is_smaller_but_slower_wins_marked_where_there_is_nothing_else() -> None:
    made = candidate(20, ratio=6.5)
    assert winner(made) == ("int8.onnx", ())
    from tests.toolchain.test_report import pressed

    report = replace(pressed(), rows=(made[0], replace(made[1], reasons=("ConvInteger (6): slow",))))
    said = remarks(report)
    assert said[0].startswith("slower than float here: int8.onnx (6.50)")
    assert "int8.onnx  ConvInteger (6): slow" in said
