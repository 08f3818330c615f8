"""Sizes: of the file, of the file packed, and how many times smaller than the baseline it is."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from toolchain.core.quantities import beside, counted, size_beside, size_text
from toolchain.core.settings import Bytes, Ratio
from toolchain.formats.inspection import packed_size
from toolchain.gate.candidate import Sources
from toolchain.gate.limit import Limit, LimitDefinition, Measure, Verdict, positive, side, within
from toolchain.stats.decision import Outcome


class SizeLimit(Limit):
    """The largest file, in bytes: as it is, or packed by zstd as an update would carry it."""

    measure: ClassVar[Measure] = "bytes"
    max: Bytes


class ShrinkLimit(Limit):
    """How many times smaller than the baseline the file must at least be."""

    measure: ClassVar[Measure] = "ratio"
    min: Ratio


def judge_size(name: str, limit: SizeLimit, size: int) -> Verdict:
    """Judge a size in bytes. name: the limit's, `size` or `packed`."""
    outcome = within(name, positive(name, size), limit.max)
    how = " packed" if name == "packed" else ""
    reason = f"{counted(size, 'byte')}{how} ({size_text(size)}), {side(outcome)} {size_beside(limit.max, size)}"
    return Verdict(name, outcome, limit.action, limit.max, size, None, reason)


def judge_shrink(limit: ShrinkLimit, size: int, baseline: int) -> Verdict:
    """Judge how many times smaller than the baseline the file is."""
    times = positive("baseline size", baseline) / positive("size", size)
    outcome = Outcome.PASS if times >= limit.min else Outcome.FAIL
    shown = beside(times, limit.min, "{:.{}f}".format)
    reason = f"{shown} times smaller than the baseline, at least {limit.min:g} asked for"
    return Verdict("shrink", outcome, limit.action, limit.min, times, None, reason)


def _packed(_: SizeLimit, sources: Sources) -> int:
    return packed_size(sources.file(PACKED).path, progress=sources.context.progress)


SIZE = LimitDefinition(
    name="size",
    settings=SizeLimit,
    about="The file's size.",
    example={"max": "250KB"},
    evidence=("files",),
    judge=lambda limit, files: judge_size("size", limit, files.candidate.bytes),
)
PACKED = LimitDefinition(
    name="packed",
    settings=SizeLimit,
    about="The file's size packed by zstd (level 19), as an update carries it.",
    example={"max": "200KB"},
    evidence=("packed",),
    judge=partial(judge_size, "packed"),
    collect=_packed,
    file_must="be packed",
)
SHRINK = LimitDefinition(
    name="shrink",
    settings=ShrinkLimit,
    about="How many times smaller than the baseline it must be.",
    example={"min": "3x"},
    evidence=("files",),
    judge=lambda limit, files: judge_shrink(limit, files.candidate.bytes, files.baseline.bytes),
)
