"""The judgement as Markdown for a pull request, and as the summary of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from toolchain.core.quantities import percent_text, points_text, size_text, time_text
from toolchain.gate.evidence import Evidence
from toolchain.gate.outcome import Part, Verdict
from toolchain.report.gallery import Flip, flips
from toolchain.report.gfm import code, details, table, text
from toolchain.report.judgement import Judged, Judgement
from toolchain.report.values import DASH, allowed_text, value_text
from toolchain.stats.decision import Outcome

_ROWS = 20
_WORDS = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE: too little evidence to say",
}


def pull_request(judgement: Judgement, evidence: Sequence[Evidence], *, picture: str | None = None) -> str:
    """Return one Markdown document.

    evidence: of each candidate, in the judgement's order. picture: the relative URL of the contact sheet; without it
    the flipped characters are a table only, as where pictures cannot be linked.
    """
    together = zip(judgement.candidates, evidence, strict=True)
    several = len(judgement.candidates) > 1
    sections = [
        f"## glyphpress gate: {_WORDS[judgement.outcome]}",
        _rivals(judgement) if several else "",
        *(part for judged, own in together for part in _candidate(judged, own, heading=several)),
        f"![The characters that flipped: image, label, before and after]({picture})" if picture else "",
        _provenance(judgement),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _rivals(judgement: Judgement) -> str:
    """Return the candidates that competed, a row each, and what the choice among them did to the confidences."""
    names = ["candidate", "outcome", "size", "accuracy", "drop", "P50"]
    rows = [
        [
            code(one.file.name) + " **ships**" * (one.file.name == judgement.winner),
            f"**{one.outcome}**",
            size_text(one.file.bytes),
            percent_text(one.comparison.candidate_accuracy),
            f"{points_text(one.comparison.drop, 3)} pp",
            DASH if one.p50 is None else time_text(one.p50),
        ]
        for one in judgement.candidates
    ]
    chosen = f"Every confidence is corrected for a choice among {judgement.competitors}." * (judgement.competitors > 1)
    return "\n\n".join(filter(None, [table(names, rows, right=(2, 3, 4, 5)), chosen]))


def _candidate(judged: Judged, evidence: Evidence, *, heading: bool) -> Iterator[str]:
    if heading:
        yield f"### {code(judged.file.name)}: {judged.outcome}"
    yield _summary(judged)
    yield _limits(judged.verdicts)
    yield from (_parts(verdict) for verdict in judged.verdicts if verdict.parts)
    yield _worst(judged)
    yield _stress(evidence)
    yield from _differences(evidence)
    yield _flipped(evidence)


def _summary(judged: Judged) -> str:
    seen, own = judged.comparison, code(judged.file.name)
    smaller = seen.baseline_bytes / seen.candidate_bytes
    return (
        f"{own} ({size_text(seen.candidate_bytes)}, {smaller:.1f}x smaller) reads "
        f"{percent_text(seen.candidate_accuracy)} of {seen.images:,} images rightly, {code(seen.baseline)} "
        f"{percent_text(seen.baseline_accuracy)}: {seen.lost:,} lost, {seen.gained:,} gained, {seen.flips:,} "
        f"answer{'s' * (seen.flips != 1)} changed. Images: {code(seen.origin)}, which {own} takes "
        f"{text(seen.candidate_input)}, "
        f"{code(seen.baseline)} {text(seen.baseline_input)}."
    )


def _limits(verdicts: Iterable[Verdict]) -> str:
    rows = [
        [
            verdict.limit + " (only warns)" * (verdict.action == "warn"),
            _bold(verdict.outcome),
            value_text(verdict.limit, verdict.measured),
            value_text(verdict.limit, verdict.bound),
            allowed_text(verdict.limit, verdict.threshold),
            text(verdict.reason),
        ]
        for verdict in verdicts
    ]
    return table(["limit", "outcome", "measured", "bound", "allowed", "why"], rows, right=(2, 3, 4))


def _bold(outcome: Outcome) -> str:
    return str(outcome) if outcome is Outcome.PASS else f"**{outcome}**"


def _parts(verdict: Verdict) -> str:
    """Return the parts of a limit, those that did not pass first and the nearest to their limit next."""

    def urgency(part: Part) -> tuple[int, float]:
        rank = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS).index(part.outcome)
        return rank, part.threshold - (part.measured if part.bound is None else part.bound)

    ranked = sorted(verdict.parts, key=urgency)
    rows = [
        [
            code(part.name),
            _bold(part.outcome),
            value_text(verdict.limit, part.measured),
            value_text(verdict.limit, part.bound),
            allowed_text(verdict.limit, part.threshold),
            f"{part.images:,}",
            text(part.note),
        ]
        for part in ranked[:_ROWS]
    ]
    body = table(["part", "outcome", "measured", "bound", "allowed", "images", "counts"], rows, right=(2, 3, 4, 5))
    open_ = sum(part.outcome is not Outcome.PASS for part in verdict.parts)
    return details(f"{verdict.limit}: {len(ranked)} parts, {open_} without a PASS", body + _rest(len(ranked)))


def _rest(count: int) -> str:
    return f"\n\nAnd {count - _ROWS:,} more." if count > _ROWS else ""


def _worst(judged: Judged) -> str:
    """Return the classes that lost the most, and what they are read as now."""
    seen = judged.comparison
    rows = [
        [code(row.label), f"{row.images:,}", f"{row.lost:,}", f"{row.gained:,}", f"{points_text(row.drop)} pp"]
        for row in seen.worst()
    ]
    confusions = ", ".join(f"{code(one.truth)} read as {code(one.read)} +{one.extra:,}" for one in seen.confusions)
    found = [table(["worst classes", "images", "lost", "gained", "drop"], rows, right=(1, 2, 3, 4))] if rows else []
    return "\n\n".join(found + [f"New confusions: {confusions}."] * bool(confusions))


def _stress(evidence: Evidence) -> str:
    """Return the fall in accuracy under each kind of damage and each strength, in percentage points."""
    if not evidence.stress:
        return ""
    labels = evidence.pairs.labels
    strengths = sorted({int(one) for damage in evidence.stress for one in np.unique(damage.strengths)})
    rows = []
    for damage in evidence.stress:
        fall = np.equal(damage.before, labels).astype(np.int64) - np.equal(damage.after, labels)
        groups = [damage.strengths == strength for strength in strengths]
        falls = [f"{points_text(float(fall[one].mean()))}" if one.any() else DASH for one in groups]
        rows.append([damage.kind, points_text(float(fall.mean())), *falls])
    names = ["damage: drop in pp", "all", *(f"strength {strength}" for strength in strengths)]
    return table(names, rows, right=range(1, len(names)))


def _differences(evidence: Evidence) -> Iterator[str]:
    """Yield, for every other place that the file ran on, which images it reads differently there."""
    for place in evidence.places:
        facts = place.runtime
        where = f"{facts.target} ({facts.runtime} {facts.version}, {facts.device})"
        if place.left_out:
            yield f"Not run on {text(facts.target)}: {text(place.left_out)}."
            continue
        told = f"On {where}: {place.differing:,} of {place.images:,} images read differently, "
        told += f"logits differ by at most {place.largest:.2g}"
        shown = place.differences[:_ROWS]
        rows = [[str(one.image), code(one.truth), code(one.here), code(one.there)] for one in shown]
        body = table(["image", "label", "here", "there"], rows, right=(0,)) + _rest(place.differing)
        yield details(told, body) if rows else f"{text(told)}."


def _flipped(evidence: Evidence) -> str:
    """Return the flipped characters as a table that opens, and how to get their pictures where there are none."""
    count, shown = int(evidence.pairs.flipped.sum()), flips(evidence)
    if not count:
        return "No answer changed."
    rows = [[str(one.image), code(one.label), _answer(one, 0), _answer(one, 1), one.kind] for one in shown]
    body = table(["image", "label", "before", "after", "kind"], rows, right=(0,))
    listed = details(f"{len(shown)} of {count:,} characters that flipped", body)
    if evidence.flipped is not None:
        return listed
    return (
        f"The evidence holds no pictures of the characters that flipped; gate again with `--data` for them.\n\n{listed}"
    )


def _answer(flip: Flip, which: int) -> str:
    return f"{code((flip.before, flip.after)[which])} {flip.confidence[which]:.0%}"


def _provenance(judgement: Judgement) -> str:
    files = [judgement.baseline, *(judged.file for judged in judgement.candidates)]
    lines = [f"- {code(file.name)}: {file.bytes:,} bytes, sha256 {code(file.sha256)}" for file in files]
    tools = ", ".join(f"{name} {version}" for name, version in judgement.tools.items())
    return details("files and tools", "\n".join(lines) + f"\n\n{text(tools)}")
