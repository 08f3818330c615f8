"""Evidence: what is stored comes back to the same bits and the same verdicts; what was tampered with does not."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from targets.preprocess import Preprocess
from targets.target import RuntimeFacts, Timings
from toolchain.errors import EvidenceError
from toolchain.evaluation.flip_images import Flipped
from toolchain.evaluation.paired_answers import FileFacts, Pairs
from toolchain.gate.evidence import Evidence
from toolchain.gate.gate import JUDGES, judge
from toolchain.gate.limits.leaks import Leaks
from toolchain.gate.limits.runtimes import Difference, Place
from toolchain.gate.limits.stress import StressPairs
from toolchain.gate.policy import policy_from

CPU = RuntimeFacts("ort-cpu", "onnxruntime", "1.31", "CPUExecutionProvider", 1)
BASE, OWN = "a" * 64, "b" * 64
CLASSES = tuple("0O1l")
EVERY_LIMIT = policy_from(
    {name: {"max": "5pp"} for name in ("drop", "classes", "confusables", "cost", "flips", "rejects", "ece")}
    | {"stress": {"max": "5pp", "kinds": ["skew", "blur"]}, "runtimes": {"max": 1}, "leaks": {}}
    | {name: {"max": "1MB"} for name in ("size", "packed", "memory")}
    | {"shrink": {"min": "2x"}, "p50": {"max": "1ms"}, "p95": {"max": "2ms"}}
    | {"p50_ratio": {"max": "1x"}, "p95_ratio": {"max": "1x"}}
)


def timings(sha256: str, median: int) -> Timings:
    samples = median + (np.arange(220) * 37 % 101 - 50).astype(np.int64) * 10
    return Timings(sha256, CPU, samples, 1, 1, 20, 5_000, 9_000, {"model": "a cpu"}, (0, 70, 140))


def whole() -> Evidence:
    """Evidence of everything that can be asked for, on 40 images."""
    labels = np.arange(40, dtype=np.int64) % 4
    before, after = labels.copy(), labels.copy()
    before[3], after[[5, 8]] = 0, 2
    sure = np.linspace(0.3, 1, 40, dtype=np.float32)
    pairs = Pairs(
        FileFacts("float.onnx", BASE, 4000, CPU, Preprocess()),
        FileFacts("int8.onnx", OWN, 1000, CPU, Preprocess()),
        "numbered/test",
        "c" * 64,
        CLASSES,
        labels,
        before,
        after,
        sure,
        sure[::-1].copy(),
    )
    strengths = np.arange(40, dtype=np.int64) % 5 + 1
    flipped = np.flatnonzero(before != after)
    there = RuntimeFacts("ort-cpu-plain", "onnxruntime", "1.31", "CPUExecutionProvider", 1)
    return Evidence(
        pairs,
        stress=tuple(StressPairs(kind, 0, strengths, before, after) for kind in ("skew", "blur")),
        places=(Place(there, 40, 0.25, 1, (Difference(9, "O", "O", "0"),)),),
        leaks=Leaks("numbered/test", "numbered/train", 40, 0, 0, 0),
        packed=900,
        memory=12_345_678,
        timings=timings(OWN, 100_000),
        baseline_timings=timings(BASE, 200_000),
        flipped=Flipped(flipped, np.arange(len(flipped) * 784, dtype=np.uint32).astype(np.uint8).reshape(-1, 28, 28)),
    )


STORED = json.dumps(whole().to_dict(), allow_nan=False)


def stored() -> dict[str, Any]:
    fresh: dict[str, Any] = json.loads(STORED)
    return fresh


def same(one: Evidence, other: Evidence) -> bool:
    """Whether two are equal to the last bit, dtypes included."""
    names = ("labels", "before", "after", "before_confidence", "after_confidence")
    mine, yours = ([getattr(e.pairs, name) for name in names] for e in (one, other))
    bits = ([(array.dtype, array.tobytes()) for array in arrays] for arrays in (mine, yours))
    return next(bits) == next(bits) and one.to_dict() == other.to_dict()


@st.composite
def answered(draw: st.DrawFn) -> Pairs:
    """Any pairs that can be: up to 30 images of 2 to 5 classes with any name, any confidence a float32 can hold."""
    names = st.text(st.characters(codec="utf-8"), max_size=3)
    classes = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    count = draw(st.integers(1, 30))
    answers = arrays.arrays(np.int64, count, elements=st.integers(0, len(classes) - 1))
    shares = arrays.arrays(np.float32, count, elements=st.floats(0, 1, width=32))
    facts = st.builds(FileFacts, names, st.just(OWN), st.integers(1, 2**40), st.just(CPU), st.just(Preprocess()))
    fields = (facts, facts, names, st.just("c" * 64), st.just(tuple(classes)), *[answers] * 3, *[shares] * 2)
    return draw(st.builds(Pairs, *fields))


@given(answered())
def test_pairs_come_back_from_json_to_the_same_bits(pairs: Pairs) -> None:
    text = json.dumps(pairs.to_dict(), allow_nan=False)
    assert same(Evidence(Pairs.from_dict(json.loads(text))), Evidence(pairs))


def test_a_file_of_evidence_gives_the_same_bits_and_the_same_verdicts(tmp_path: Path) -> None:
    made = whole()
    made.save(tmp_path / "evidence.json")
    read = Evidence.load(tmp_path / "evidence.json")
    assert same(read, made)
    assert judge(EVERY_LIMIT, read) == judge(EVERY_LIMIT, made)
    assert len(judge(EVERY_LIMIT, read)) == 18


def test_evidence_of_pairs_alone_comes_back_too(tmp_path: Path) -> None:
    made = Evidence(whole().pairs)
    made.save(tmp_path / "evidence.json")
    assert same(Evidence.load(tmp_path / "evidence.json"), made)


Place_ = tuple[str | int, ...]


def places(values: Any, here: Place_ = ()) -> Iterator[Place_]:
    """Every place of a JSON value; of a long list the first and the last few members."""
    yield here
    if isinstance(values, dict):
        for key in values:
            yield from places(values[key], (*here, key))
    elif isinstance(values, list):
        for index in sorted({*range(min(3, len(values))), *range(max(0, len(values) - 2), len(values))}):
            yield from places(values[index], (*here, index))


def at(values: Any, place: Place_) -> Any:
    for key in place:
        values = values[key]
    return values


def changed(place: Place_, value: Any) -> Any:
    """The stored evidence with another value at a place."""
    if not place:
        return value
    values = stored()
    at(values, place[:-1])[place[-1]] = value
    return values


NUMBERS = st.one_of(
    st.integers(-3, 50),
    st.integers(),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**400]),
    st.floats(),
    st.floats(-0.5, 1.5),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.sampled_from(["1", "0.5", "nan", OWN]))
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def alike(read: Any, given: Any) -> bool:
    """Whether what was read says what was given; confidences are kept as float32."""
    if isinstance(given, dict):
        return isinstance(read, dict) and read.keys() == given.keys() and all(alike(read[k], given[k]) for k in given)
    if isinstance(given, list):
        return isinstance(read, list) and len(read) == len(given) and all(map(alike, read, given))
    if isinstance(given, float):
        return isinstance(read, float) and np.isclose(read, given, rtol=0, atol=1e-7, equal_nan=True)
    return bool(read == given) and isinstance(read, type(given) | float)


@settings(max_examples=400)
@given(st.sampled_from(list(places(stored()))), ANY)
def test_any_value_in_place_of_another_is_an_error_or_says_what_it_says(place: Place_, value: Any) -> None:
    tampered = changed(place, value)
    try:
        read = Evidence.from_dict(copy.deepcopy(tampered))
    except EvidenceError:
        return
    assert alike(read.to_dict(), tampered)
    for name, limit in EVERY_LIMIT.limits():
        with contextlib.suppress(EvidenceError):
            JUDGES[name](limit, read)
