"""Bad evidence: each a clear error from whatever reads it, never a pass, whichever policy asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targets.session import Timings
from tests.conftest import Finished
from tests.fixtures.evidence import OWN, Path_, changed, places, stored, timings_of, whole
from tests.fixtures.small_readers import digits, linear_reader, pair
from tests.fixtures.strategies import ANY
from toolchain.core.errors import EvidenceError, GlyphpressError, PolicyError
from toolchain.core.json_codec import from_json
from toolchain.evaluation.compare import Pairs
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.candidate import JudgedFile, read_judged_file
from toolchain.gate.collect import gather
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.policy import Policy, named, policy_from

Run = Callable[..., Finished]
# As lenient as can be: what it passes, everything passes.
LENIENT = policy_from({"drop": {"max": "99pp"}, "size": {"max": "1000MB"}})
LONG = 10**400


def put(*place: str | int) -> Callable[[Any], dict[str, Any]]:
    return lambda value: changed(place, value)


PAIRS = [
    ("labels", [], "no images were read"),
    ("labels", [0] * 39, "do not fit"),
    ("labels", ["0"] * 40, 'pairs.labels.0: it should be a whole number, not "0"'),
    ("labels", [0.0] * 40, "pairs.labels.0: it should be a whole number, not 0.0"),
    ("labels", [True] * 40, "pairs.labels.0: it should be a whole number, not true"),
    ("labels", [None] * 40, "pairs.labels.0: it should be a whole number, not null"),
    ("labels", [[0]] * 40, r"pairs.labels.0: it should be a whole number, not \[0\]"),
    ("labels", "0" * 40, "pairs.labels: it should be a list"),
    ("labels", [LONG] * 40, "it should be less than"),
    ("before", [4] * 40, "do not fit 4 classes"),
    ("after", [-1] * 40, "do not fit 4 classes"),
    ("after_confidence", [1.0] * 41, "a confidence is not a probability"),
    ("after_confidence", [float("nan")] * 40, "NaN is not valid JSON"),
    ("after_confidence", [float("inf")] * 40, "Infinity is not valid JSON"),
    ("after_confidence", [-1e-9] * 40, "after_confidence.0: it should be greater than or equal to 0"),
    ("after_confidence", [1.0000000001] * 40, "after_confidence.0: it should be less than or equal to 1"),
    ("after_confidence", ["0.5"] * 40, 'it should be a number, not "0.5"'),
    ("after_confidence", [LONG] * 40, "it should be a "),
    ("sample_ids", ["0" * 32] * 39, "not one hash for each image"),
    ("sample_ids", ["0" * 33] * 40, r"pairs.sample_ids.0: "),
    ("sample_ids", ["image"] * 40, r"pairs.sample_ids.0: "),
    ("sample_ids", [7] * 40, "pairs.sample_ids.0: it should be a text, not 7"),
    ("classes", "0O1l", "pairs.classes: it should be a list"),
    ("classes", ["0", "O", "1", "1"], "two classes have the same name"),
    ("classes", ["0", "O", "1", 7], "pairs.classes.3: it should be a text, not 7"),
    ("origin", None, "pairs.origin: it should be a text, not null"),
]
REST = [
    (("schema",), "glyphpress/evidence/2", "format 2.*which reads up to 1: update glyphpress"),
    (("pairs", "candidate", "bytes"), "1000", "pairs.candidate.bytes: it should be a whole number"),
    (("pairs", "candidate", "bytes"), 2**63, "no file has 9223372036854775808 bytes"),
    (("pairs", "candidate", "sha256"), "b", "no name, digest, size or runtime"),
    (("pairs", "candidate", "runtime", "threads"), True, "facts of a runtime"),
    (("packed",), -1, "packed: it should be greater than or equal to 0, not -1"),
    (("packed",), 1.5, "packed: it should be a whole number, not 1.5"),
    (("memory",), True, "memory: it should be a whole number, not true"),
    (("memory",), LONG, "memory: it should be less than"),
    (("timings", "artifact_sha256"), "c" * 64, "candidate's timings are of another file"),
    (("baseline_timings", "artifact_sha256"), OWN, "baseline's timings are of another file"),
    (("timings", "samples_ns"), [], "do not fit"),
    (("timings", "samples_ns"), [1.0] * 220, "is no count"),
    (("timings", "blocks"), [0, 140, 70], "do not fit"),
    (("timings", "blocks"), [0, 220], "do not fit"),
    (("timings", "inner"), "1", "is no count"),
    (("flipped", "indices"), [0, 1, 2], "pictures are of other images"),
    (("flipped", "indices"), [400, 401, 402], "pictures are of other images"),
    (("flipped", "images"), "AAAA", "flipped.images: "),
    (("flipped", "images"), "not base64", "flipped.images: "),
    (("leaks", "images"), 41, "other images than the answers"),
    (("places", 0, "images"), 41, "other images than the answers"),
    (("stress", 0), None, "stress.0: it should be an object, not null"),
]
TAMPERED = [(("pairs", name), value, told) for name, value, told in PAIRS] + REST


@pytest.mark.parametrize(("place", "value", "told"), TAMPERED, ids=[f"{row[0][-1]} {row[2]}" for row in TAMPERED])
def test_tampered_evidence_says_what_is_wrong(tmp_path: Path, place: Path_, value: Any, told: str) -> None:
    (tmp_path / "evidence.json").write_text(json.dumps(changed(place, value)))
    with pytest.raises(EvidenceError, match=told) as caught:
        Evidence.load(tmp_path / "evidence.json")
    assert ";" in str(caught.value), "then what to do"
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [one for one in places(stored()) if one and isinstance(one[-1], str)], ids=str)
def test_evidence_with_a_field_missing_is_no_evidence(place: Path_) -> None:
    values = stored()
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    if place[-2:-1] == ("machine",):
        from_json(Evidence, json.dumps(values))  # what is known of a machine differs
        return
    with pytest.raises(ValueError, match=f"{place[-1]}|its counts do not fit together"):
        from_json(Evidence, json.dumps(values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"evidence"',
        "[" * 100_000,
        '{"schema": "glyphpress/evidence/1"}',
        "\ufeff{}",
        "9" * 5000,
    ],
    ids=lambda text: text[:10] or "nothing",
)
def test_a_file_that_holds_no_evidence_is_one_line(glyphpress: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "evidence.json").write_text(text, encoding="utf-8")
    found = glyphpress("gate", "--from", tmp_path / "evidence.json")
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith(f"glyphpress: {tmp_path / 'evidence.json'}: not stored evidence (")
    assert found.err.count("\n") == 1


def test_nan_hidden_where_anything_goes_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text(json.dumps(changed(("timings", "machine", "model"), float("nan"))))
    with pytest.raises(EvidenceError, match="NaN is not valid JSON"):
        Evidence.load(tmp_path / "evidence.json")


def test_no_shipped_policy_passes_evidence_that_lacks_what_it_asks_for() -> None:
    answers_alone = Evidence(whole().pairs)
    strict = named()["strict"]
    with pytest.raises(
        EvidenceError, match=r"the evidence does not hold it; store it again with .*, or drop the limit"
    ):
        judge(strict, answers_alone)
    for name, limit in strict.limits():
        held = {"drop", "classes", "confusables", "flips", "rejects", "ece", "cost", "size", "shrink"}
        only = Policy(**{name: limit.model_copy(update={"action": "fail"})})
        if name in held:
            assert judge(only, answers_alone)[0].limit == name
        else:
            with pytest.raises(EvidenceError, match=f"limits {name}, but"):
                judge(only, answers_alone)


@pytest.mark.parametrize("tables", [{}, {"baseline": {"digest": OWN}}, {"drop": {"max": "1pp", "action": "warn"}}])
def test_a_policy_that_cannot_fail_is_no_policy(tables: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="so everything would pass"):
        policy_from(tables)


def test_a_file_whose_answers_are_not_finite_gives_no_evidence(glyphpress: Run, tmp_path: Path) -> None:
    linear_reader(tmp_path / "float.onnx")
    linear_reader(tmp_path / "nan.onnx", nan=True)
    for files in (("float.onnx", "nan.onnx"), ("nan.onnx", "float.onnx")):
        with pytest.raises(Exception, match=r"nan\.onnx: logits of .* not finite"):
            gather(LENIENT, *(read_judged_file(tmp_path / name, digits()) for name in files), digits())
        words = [word for pair in zip(("--baseline", "--candidate"), files, strict=True) for word in pair]
        paths = [tmp_path / word if word in files else word for word in words]
        found = glyphpress("-q", "gate", *paths, "--data", "builtin:digits", "--max-drop", "99pp")
        assert (found.code, found.out) == (3, "")
        assert "not finite" in found.err


def test_times_of_another_file_are_never_gathered() -> None:
    base, own = (JudgedFile(one) for one in pair(0, 0, 100))
    policy = policy_from({"p50": {"max": "1s"}})
    foreign: tuple[Timings, Timings] = timings_of("e" * 64, 100_000), timings_of("f" * 64, 100_000)
    with pytest.raises(EvidenceError, match="candidate's timings are of another file"):
        gather(policy, base, own, None, times=foreign)


def facts() -> dict[str, Any]:
    """What a saved evaluation holds beside its arrays."""
    return {"schema": "glyphpress/evaluation/1"} | json.loads(json.dumps(pair(0, 0, 30)[1].to_dict()))


def resaved(folder: Path, meta: Any) -> Path:
    own = pair(0, 0, 30)[1]
    arrays = {name: getattr(own, name) for name in ("logits", "labels", "sample_ids")}
    np.savez(folder / "own.npz", meta=np.array(json.dumps(meta)), **arrays)
    return folder / "own.npz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@settings(max_examples=150)
@given(st.sampled_from([one for one in places(facts()) if one]), ANY)
@example(("artifact",), 7)
@example(("artifact_bytes",), "1000")
@example(("classes",), "0123456789")
def test_facts_that_were_changed_in_a_saved_evaluation_are_an_error_or_change_no_verdict(
    folder: Path, place: Path_, value: Any
) -> None:
    base, own = pair(0, 0, 30)
    expected = [verdict.outcome for verdict in judge(LENIENT, Evidence(Pairs.of(base, own)))]
    meta = facts()
    inner = meta
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        read = Evaluation.load(resaved(folder, meta))
        verdicts = judge(LENIENT, Evidence(Pairs.of(base, read)))
    except GlyphpressError:
        return
    # Images that are said to be taken otherwise may fail [preprocess], which is judged without being asked for.
    found = [verdict.outcome for verdict in verdicts if verdict.limit != "preprocess" or place[0] != "preprocess"]
    if place != ("artifact_bytes",):
        assert found == expected


@pytest.mark.parametrize("count", [1, 3])
def test_evaluations_of_no_or_of_other_images_are_never_compared(count: int) -> None:
    base, own = pair(0, 0, 100)
    with pytest.raises(EvidenceError, match="images"):
        Pairs.of(base, pair(0, 0, 100 - count)[1])
    nothing = {name: getattr(own, name)[:0] for name in ("logits", "labels", "sample_ids")}
    with pytest.raises(EvidenceError, match="no images were evaluated"):
        replace(own, **nothing)
    none = {name: getattr(whole().pairs, name)[:0] for name in ("labels", "before", "after")}
    with pytest.raises(EvidenceError, match="no images were read"):
        replace(whole().pairs, **none)
