"""The same file elsewhere: places are found, asked and judged; nothing is left out unsaid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.sample import draw
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import RunFailed, TargetUnavailable, UnknownTarget
from targets.metadata import load_artifact
from targets.null import NullTarget
from targets.onnxruntime.cpu import OrtCpu
from targets.session import RuntimeFacts
from targets.target import Availability
from tests.fixtures.evidence import whole
from tests.fixtures.small_readers import DIGITS, FACTS, digits, linear_reader, pair
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.compare import Pairs
from toolchain.evaluation.evaluate import Evaluation, evaluate
from toolchain.gate.gate import Evidence, judge_limit
from toolchain.gate.limits.leaks import Leaks
from toolchain.gate.limits.runtimes import (
    LISTED,
    Difference,
    Place,
    RuntimesLimit,
    answers_on_other_targets,
    judge_runtimes,
)
from toolchain.quantize import quantize
from toolchain.recipe import Quantize
from toolchain.stats.decision import Outcome

NONE_DIFFER = RuntimesLimit(max=0)


class Nowhere(OrtCpu):
    """A place that is not here."""

    name = "nowhere"

    def probe(self) -> Availability:
        return Availability(False, "no board answers", "plug it in")


class Broken(NullTarget):
    """A place that answers NaN."""

    name = "broken"

    def __init__(self) -> None:
        super().__init__(logits=np.full((1, 10), np.nan))


@pytest.fixture
def reader(tmp_path: Path) -> Artifact:
    return load_artifact(linear_reader(tmp_path / "reader.onnx"))


@pytest.fixture
def own(reader: Artifact) -> Evaluation:
    return evaluated(reader)


def evaluated(artifact: Artifact, dataset: Dataset | None = None) -> Evaluation:
    with catalog.default_for(artifact.format).open(artifact) as session:
        return evaluate(session, dataset or digits())


def misread(own: Evaluation, images: list[int]) -> Evaluation:
    """The evaluation as if some images had been answered by the next class."""
    logits = own.logits.copy()
    logits[images] = np.roll(logits[images], 1, axis=1)
    return replace(own, logits=logits)


def stored(places: tuple[Place, ...]) -> tuple[Place, ...]:
    return tuple(from_json(Place, json.dumps(to_json(place))) for place in places)


def by_name(places: tuple[Place, ...]) -> dict[str, Place]:
    return {place.runtime.target: place for place in places}


def test_every_other_place_that_takes_the_file_is_asked(reader: Artifact, own: Evaluation) -> None:
    told: list[tuple[str, int, int]] = []
    places = answers_on_other_targets(NONE_DIFFER, reader, own, digits(), progress=lambda *step: told.append(step))
    assert list(by_name(places)) == ["ort-precise", "ort-reference"]
    plain = by_name(places)["ort-reference"]
    assert (plain.images, plain.differing, plain.runtime.runtime) == (len(digits()), 0, "onnxruntime")
    assert plain.largest < 1e-4
    assert told[-1] == ("reader.onnx on ort-reference", len(digits()), len(digits()))
    verdict = judge_runtimes(NONE_DIFFER, stored(places))
    assert stored(places) == places
    assert verdict.outcome is Outcome.PASS
    assert "ort-reference" in {part.name for part in verdict.parts}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_honest_int8_file_reads_alike_on_all_kernels(
    kind: Format, floats: dict[Format, Artifact], digits_test: Dataset, digits: Dataset, tmp_path: Path
) -> None:
    step = Quantize.model_validate({"scheme": "static-int8"})
    images = draw(digits, 64, exclude=digits_test)
    pressed = quantize(floats[kind], step, images, tmp_path / f"int8.{kind}", recipe="static-int8")
    some = digits_test.take(np.arange(200), "some")
    places = answers_on_other_targets(NONE_DIFFER, pressed, evaluated(pressed, some), some)
    verdict = judge_runtimes(RuntimesLimit(max=2), places)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert any(place.largest > 0 for place in places), "other kernels round otherwise"


def test_each_difference_is_listed_by_image(reader: Artifact, own: Evaluation) -> None:
    images = [3, 17, 200, 301]
    here = misread(own, images)
    places = answers_on_other_targets(NONE_DIFFER, reader, here, digits())
    plain = by_name(places)["ort-reference"]
    assert plain.differences == tuple(
        Difference(k, DIGITS[own.labels[k]], DIGITS[here.predictions[k]], DIGITS[own.predictions[k]]) for k in images
    )
    assert judge_runtimes(RuntimesLimit(max=4), places).outcome is Outcome.PASS
    verdict = judge_runtimes(RuntimesLimit(max=3), stored(places))
    assert (verdict.outcome, verdict.measured, verdict.threshold) == (Outcome.FAIL, 4, 3)
    k = images[0]
    first = f"image 3: '{DIGITS[here.predictions[k]]}' here, '{DIGITS[own.predictions[k]]}' there, truth"
    assert first in verdict.reason


def test_a_file_that_is_read_otherwise_everywhere_keeps_the_count(reader: Artifact, own: Evaluation) -> None:
    here = misread(own, list(range(len(own))))
    places = stored(answers_on_other_targets(NONE_DIFFER, reader, here, digits()))
    plain = by_name(places)["ort-reference"]
    assert (plain.differing, len(plain.differences)) == (len(own), LISTED)
    verdict = judge_runtimes(RuntimesLimit(max=100), places)
    assert verdict.outcome is Outcome.FAIL
    assert f"and {len(own) - 5} more" in verdict.reason


def test_a_place_that_is_not_here_is_told_or_where_it_is_named_an_error(
    reader: Artifact, own: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.TARGETS, "nowhere", f"{__name__}:Nowhere")
    monkeypatch.setattr(catalog, "KERNELS", (*catalog.KERNELS, "nowhere"))
    places = stored(answers_on_other_targets(NONE_DIFFER, reader, own, digits()))
    verdict = judge_runtimes(NONE_DIFFER, places)
    assert verdict.outcome is Outcome.PASS
    assert "left out: nowhere: no board answers" in verdict.reason
    named = RuntimesLimit(max=0, targets=("ort-reference", "nowhere"))
    with pytest.raises(TargetUnavailable, match="nowhere: no board answers; plug it in"):
        answers_on_other_targets(named, reader, own, digits())
    with pytest.raises(EvidenceError, match="no answers of nowhere"):
        judge_runtimes(named, places)


def test_named_places_that_cannot_take_the_file_are_told(reader: Artifact, own: Evaluation) -> None:
    limit = RuntimesLimit(max=0, targets=("litert-reference", "ort-reference", "ort-cpu"))
    places = answers_on_other_targets(limit, reader, own, digits())
    verdict = judge_runtimes(limit, stored(places))
    assert [part.name for part in verdict.parts] == ["ort-reference"]
    assert "litert-reference: runs .tflite files; ort-cpu: is the place" in verdict.reason


@pytest.mark.parametrize("targets", [("ort-cpu",), ("litert-cpu", "ort-cpu")])
def test_nowhere_else_is_no_agreement(reader: Artifact, own: Evaluation, targets: tuple[str, ...]) -> None:
    with pytest.raises(EvidenceError, match="can run nowhere else than on ort-cpu"):
        answers_on_other_targets(RuntimesLimit(max=0, targets=targets), reader, own, digits())
    with pytest.raises(EvidenceError, match="no answers of another place"):
        judge_runtimes(NONE_DIFFER, ())


def test_an_unknown_place_is_answered_with_the_nearest(reader: Artifact, own: Evaluation) -> None:
    with pytest.raises(UnknownTarget, match="did you mean ort-reference"):
        answers_on_other_targets(RuntimesLimit(max=0, targets=("ort-referenz",)), reader, own, digits())


def test_a_place_that_cannot_run_the_file_never_agrees(
    reader: Artifact, own: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.TARGETS, "broken", f"{__name__}:Broken")
    monkeypatch.setattr(catalog, "KERNELS", (*catalog.KERNELS, "broken"))
    with pytest.raises(RunFailed, match=r"^broken: .*not finite"):
        answers_on_other_targets(NONE_DIFFER, reader, own, digits())


def test_answers_of_something_else_are_refused(reader: Artifact, own: Evaluation) -> None:
    for other in (replace(own, artifact_sha256="0" * 64), replace(own, dataset_sha256="0" * 64)):
        with pytest.raises(EvidenceError, match="is not what was evaluated"):
            answers_on_other_targets(NONE_DIFFER, reader, other, digits())


def test_a_place_that_the_evidence_lacks_is_no_pass() -> None:
    places = (Place(FACTS, 10, 0.0, 0),)
    assert judge_runtimes(NONE_DIFFER, places).outcome is Outcome.PASS
    with pytest.raises(EvidenceError, match="no answers of ort-reference"):
        judge_runtimes(RuntimesLimit(max=0, targets=("null", "ort-reference")), places)


def test_evidence_from_which_a_runtime_was_taken_out_is_no_pass() -> None:
    whole_evidence = whole()
    for taken_out in whole_evidence.places:
        kept = tuple(place for place in whole_evidence.places if place is not taken_out)
        with pytest.raises(EvidenceError, match=f"says nothing of {taken_out.runtime.target}, where int8.onnx runs"):
            judge_limit("runtimes", RuntimesLimit(max=20), replace(whole_evidence, places=kept))
    assert judge_limit("runtimes", RuntimesLimit(max=20), whole_evidence).outcome is Outcome.PASS


ONE = Difference(1, "a", "b", "a")


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"differing": -1},
        {"differing": 11},
        {"differing": 1},
        {"differences": [vars(ONE)]},
        {"largest": float("nan")},
        {"largest": -1.0},
        {"left_out": "not asked"},
        {"available": False},
        {"images": 10.0},
        {"differing": False},
        {"left_out": None},
        {"available": 1},
        {"differing": 1, "differences": [vars(ONE) | {"image": "1"}]},
        {"differing": 1, "differences": [vars(ONE) | {"here": 1}]},
        {"more": 1},
        {"runtime": {}},
    ],
    ids=str,
)
def test_counts_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}|differences|gather the evidence again|NaN"):
        from_json(Place, json.dumps(to_json(Place(FACTS, 10, 0.0, 0)) | change))


def test_evidence_of_other_images_is_refused() -> None:
    pairs = Pairs.of(*pair(1, 0, 10))
    assert Evidence(pairs, places=(Place(FACTS, 10, 0.0, 0),)).places
    with pytest.raises(EvidenceError, match="other images than the answers"):
        Evidence(pairs, places=(Place(FACTS, 9, 0.0, 0),))
    with pytest.raises(EvidenceError, match="other images than the answers"):
        Evidence(pairs, leaks=Leaks("a/test", "a/train", 9, 0, 0, 0))


words = st.text(max_size=5)
differences = st.builds(Difference, st.integers(0, 99), words, words, words)


@given(st.lists(differences, max_size=20), st.floats(0, 1e6), words, st.booleans())
def test_places_come_back_from_json(listed: list[Difference], largest: float, why: str, here: bool) -> None:
    facts = RuntimeFacts("there", "some", "1", "cpu", 1)
    read = Place(facts, 99, largest, len(listed), tuple(listed))
    away = Place(facts, 0, 0.0, 0, left_out=why or "away", available=here)
    assert stored((read, away)) == (read, away)
