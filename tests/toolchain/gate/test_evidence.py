"""Evidence: what is stored comes back to the same bits and the same verdicts; what was tampered with does not."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from targets.preprocess import Preprocess
from tests.fixtures.evidence import CPU, OWN, Path_, changed, places, stored, whole
from tests.fixtures.strategies import ANY
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.evaluation.compare import FileFacts, Pairs
from toolchain.gate.gate import Evidence, judge, judge_limit
from toolchain.gate.policy import policy_from

EVERY_LIMIT = policy_from(
    {name: {"max": "5pp"} for name in ("drop", "classes", "confusables", "cost", "flips", "rejects", "ece")}
    | {"stress": {"max": "5pp", "kinds": ["skew", "blur"]}, "runtimes": {"max": 1}, "leaks": {}}
    | {name: {"max": "1MB"} for name in ("size", "packed", "memory")}
    | {"shrink": {"min": "2x"}, "p50": {"max": "1ms"}, "p95": {"max": "2ms"}}
    | {"p50_ratio": {"max": "1x"}, "p95_ratio": {"max": "1x"}}
)


def same(one: Evidence, other: Evidence) -> bool:
    """Whether two are equal to the last bit, dtypes included."""
    names = ("labels", "before", "after", "before_confidence", "after_confidence", "sample_ids")
    mine, yours = ([getattr(e.pairs, name) for name in names] for e in (one, other))
    bits = ([(array.dtype, array.tobytes()) for array in arrays] for arrays in (mine, yours))
    return next(bits) == next(bits) and to_json(one) == to_json(other)


@st.composite
def answered(draw: st.DrawFn) -> Pairs:
    """Any pairs that can be: up to 30 images of 2 to 5 classes with any name, any confidence a float32 can hold."""
    names = st.text(st.characters(codec="utf-8"), max_size=3)
    classes = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    count = draw(st.integers(1, 30))
    answers = arrays.arrays(np.int64, count, elements=st.integers(0, len(classes) - 1))
    shares = arrays.arrays(np.float32, count, elements=st.floats(0, 1, width=32))
    ids = arrays.arrays("S32", count, elements=st.from_regex(rb"[0-9a-f]{1,32}", fullmatch=True))
    facts = st.builds(FileFacts, names, st.just(OWN), st.integers(1, 2**40), st.just(CPU), st.just(Preprocess()))
    fields = (facts, facts, names, st.just("c" * 64), st.just(tuple(classes)), *[answers] * 3, *[shares] * 2, ids)
    return draw(st.builds(Pairs, *fields))


@given(answered())
def test_pairs_come_back_from_json_to_the_same_bits(pairs: Pairs) -> None:
    text = json.dumps(to_json(pairs), allow_nan=False)
    assert same(Evidence(from_json(Pairs, text)), Evidence(pairs))


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
def test_any_value_in_place_of_another_is_an_error_or_says_what_it_says(place: Path_, value: Any) -> None:
    tampered = changed(place, value)
    try:
        read = from_json(Evidence, json.dumps(tampered))
    except ValueError:
        return
    assert alike(to_json(read), tampered)
    for name, limit in EVERY_LIMIT.limits():
        with contextlib.suppress(EvidenceError):
            judge_limit(name, limit, read)
