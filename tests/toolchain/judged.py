"""Judgements for tests: of real files that read the built-in digits, and of answers written by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from targets.session import RuntimeFacts
from tests.fixtures.timings import flat_timings
from tests.toolchain.readers import digits, linear_reader, pair
from toolchain.evaluation.flip_images import Flipped
from toolchain.evaluation.paired_answers import Pairs
from toolchain.gate.candidate import read_judged_file
from toolchain.gate.collect import gather
from toolchain.gate.evidence import Evidence
from toolchain.gate.gate import judge
from toolchain.gate.limits.runtimes import Difference, Place
from toolchain.gate.limits.stress import StressPairs
from toolchain.gate.policy import policy_from
from toolchain.report.judgement import Judgement

ODD = ("|", "`", "<", "&", '"', "[", "\\", "*_*", "京", "$a$")
"""Ten classes whose names mean something to XML, Markdown, SARIF or a terminal."""

LOOSE: dict[str, Any] = {"drop": {"max": "3pp"}, "classes": {"max": "50pp"}, "size": {"max": "250KB"}}
STRICT: dict[str, Any] = {"drop": {"max": "0.3pp"}, "size": {"max": "1KB", "action": "warn"}}
DAMAGED: dict[str, Any] = {
    "drop": {"max": "0.3pp"},
    "classes": {"max": "1pp", "action": "warn"},
    "stress": {"max": "1pp", "kinds": ["blur"]},
    "runtimes": {"max": 0},
}


@cache
def gathered(*, broken: bool = False) -> Evidence:
    """Evidence of a real file: an honest rounding of the float reader, or one whose digits 4 and 7 are never read."""
    with tempfile.TemporaryDirectory() as folder:
        base = linear_reader(Path(folder) / "float.onnx")
        name = Path(folder) / ("broken.onnx" if broken else "int8.onnx")
        own = linear_reader(name, dead=(4, 7)) if broken else linear_reader(name, step=0.01)
        subjects = [read_judged_file(file, digits(), threads=1) for file in (base, own)]
        return gather(policy_from(LOOSE), *subjects, digits())


def answers(
    lost: int, gained: int, count: int = 18_800, *, name: str = "int8.onnx", size: int = 250, p50: int = 0
) -> Evidence:
    """Evidence of as many lost and gained answers, on classes with odd names, with the first pictures of the digits.

    p50: median latency in nanoseconds, 0 for a file that was not timed.
    """
    base, own = (replace(one, classes=ODD) for one in pair(lost, gained, count, size=size))
    pairs = Pairs.of(base, replace(own, artifact=name))
    changed = np.flatnonzero(pairs.flipped)[:60]
    pictures = Flipped(changed, digits().images[: len(changed)])
    times = flat_timings(pairs.candidate.sha256, p50) if p50 else None
    return Evidence(pairs, timings=times, flipped=pictures)


def with_damage(evidence: Evidence) -> Evidence:
    """The evidence with answers under damage, worse from strength 4 on, and with another runtime that differs once."""
    pairs = evidence.pairs
    strengths = np.arange(len(pairs)) % 5 + 1
    after = np.where(strengths > 3, (pairs.labels + 1) % 10, pairs.labels)
    facts = RuntimeFacts("ort-reference", "onnxruntime", "1", "cpu", 1)
    place = Place(facts, len(pairs), 0.25, 1, (Difference(7, *"|`<"),))
    return replace(evidence, stress=(StressPairs("blur", 0, strengths, pairs.labels, after),), places=(place,))


def concluded(tables: dict[str, Any], *evidence: Evidence, files: Sequence[Path] = ()) -> Judgement:
    """The judgement of candidates that compete."""
    policy = policy_from(tables)
    return Judgement.of(policy, [(one, judge(policy, one, competitors=len(evidence))) for one in evidence], files=files)
