"""The judgement as Markdown for a pull request, and as the summary of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from toolchain.core.quantities import percent_text, points_text, size_text, time_text
from toolchain.gate.evidence import Evidence
from toolchain.gate.outcome import Part, Verdict
from toolchain.report.gallery import Flip, flips
from toolchain.report.gfm import code, details, table, text
from toolchain.report.judgement import DASH, Judged, Judgement, allowed_text, value_text
from toolchain.stats.decision import Outcome

_ROWS = 20
_WORDS = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.INCONCLUSIVE: "INCONCLUSIVE: too little evidence to say",
}


def pull_request(judgement: Judgement, evidence: Sequence[Evidence], *, picture: str | None = None) -> str:
    """Return one Markdown document.

    evidence: of each candidate, in the judgement's order. picture: the relative URL of the contact sheet, None where
    pictures cannot be linked; the flipped characters are then shown only as a table.
    """
    pairs = zip(judgement.candidates, evidence, strict=True)
    competing = len(judgement.candidates) > 1
    sections = [
        f"## glyphpress gate: {_WORDS[judgement.outcome]}",
        _competitors(judgement) if competing else "",
        *(section for judged, facts in pairs for section in _candidate(judged, facts, heading=competing)),
        f"![The characters that flipped: image, label, before and after]({picture})" if picture else "",
        _provenance(judgement),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _competitors(judgement: Judgement) -> str:
    """Return a table of the candidates that competed, and how the choice among them affects the confidences."""
    names = ["candidate", "outcome", "size", "accuracy", "drop", "P50"]
    rows = [
        [
            code(judged.file.name) + " **ships**" * (judged.file.name == judgement.winner),
            f"**{judged.outcome}**",
            size_text(judged.file.bytes),
            percent_text(judged.comparison.candidate_accuracy),
            f"{points_text(judged.comparison.drop, 3)} pp",
            DASH if judged.p50 is None else time_text(judged.p50),
        ]
        for judged in judgement.candidates
    ]
    choice = f"Every confidence is corrected for a choice among {judgement.competitors}." * (judgement.competitors > 1)
    return "\n\n".join(filter(None, [table(names, rows, right=(2, 3, 4, 5)), choice]))


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
    comparison, name = judged.comparison, code(judged.file.name)
    shrink = comparison.baseline_bytes / comparison.candidate_bytes
    return (
        f"{name} ({size_text(comparison.candidate_bytes)}, {shrink:.1f}x smaller) reads "
        f"{percent_text(comparison.candidate_accuracy)} of {comparison.images:,} images rightly, "
        f"{code(comparison.baseline)} {percent_text(comparison.baseline_accuracy)}: {comparison.lost:,} lost, "
        f"{comparison.gained:,} gained, {comparison.flips:,} answer{'s' * (comparison.flips != 1)} changed. Images: "
        f"{code(comparison.origin)}, which {name} takes {text(comparison.candidate_input)}, "
        f"{code(comparison.baseline)} {text(comparison.baseline_input)}."
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
    """Return the parts of a limit, those that did not pass first, then those closest to their limit."""

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
    not_passed = sum(part.outcome is not Outcome.PASS for part in verdict.parts)
    return details(f"{verdict.limit}: {len(ranked)} parts, {not_passed} without a PASS", body + _rest(len(ranked)))


def _rest(count: int) -> str:
    return f"\n\nAnd {count - _ROWS:,} more." if count > _ROWS else ""


def _worst(judged: Judged) -> str:
    """Return the classes with the largest drops, and the new confusions."""
    comparison = judged.comparison
    rows = [
        [code(row.label), f"{row.images:,}", f"{row.lost:,}", f"{row.gained:,}", f"{points_text(row.drop)} pp"]
        for row in comparison.worst()
    ]
    confusions = ", ".join(
        f"{code(pair.truth)} read as {code(pair.read)} +{pair.extra:,}" for pair in comparison.confusions
    )
    tables = [table(["worst classes", "images", "lost", "gained", "drop"], rows, right=(1, 2, 3, 4))] if rows else []
    return "\n\n".join(tables + [f"New confusions: {confusions}."] * bool(confusions))


def _stress(evidence: Evidence) -> str:
    """Return the drop in accuracy under each kind of damage and each strength, in percentage points."""
    if not evidence.stress:
        return ""
    labels = evidence.pairs.labels
    strengths = sorted({int(strength) for damage in evidence.stress for strength in np.unique(damage.strengths)})
    rows = []
    for damage in evidence.stress:
        drop = np.equal(damage.before, labels).astype(np.int64) - np.equal(damage.after, labels)
        groups = [damage.strengths == strength for strength in strengths]
        drops = [f"{points_text(float(drop[group].mean()))}" if group.any() else DASH for group in groups]
        rows.append([damage.kind, points_text(float(drop.mean())), *drops])
    names = ["damage: drop in pp", "all", *(f"strength {strength}" for strength in strengths)]
    return table(names, rows, right=range(1, len(names)))


def _differences(evidence: Evidence) -> Iterator[str]:
    """Yield, for every other target that the file ran on, which images it reads differently there."""
    for place in evidence.places:
        facts = place.runtime
        where = f"{facts.target} ({facts.runtime} {facts.version}, {facts.device})"
        if place.left_out:
            yield f"Not run on {text(facts.target)}: {text(place.left_out)}."
            continue
        summary = f"On {where}: {place.differing:,} of {place.images:,} images read differently, "
        summary += f"logits differ by at most {place.largest:.2g}"
        rows = [
            [str(answer.image), code(answer.truth), code(answer.here), code(answer.there)]
            for answer in place.differences[:_ROWS]
        ]
        body = table(["image", "label", "here", "there"], rows, right=(0,)) + _rest(place.differing)
        yield details(summary, body) if rows else f"{text(summary)}."


def _flipped(evidence: Evidence) -> str:
    """Return the flipped characters as a table that can be opened, and how to get their pictures if there are none."""
    count, listed = int(evidence.pairs.flipped.sum()), flips(evidence)
    if not count:
        return "No answer changed."
    rows = [[str(flip.image), code(flip.label), _answer(flip, 0), _answer(flip, 1), flip.kind] for flip in listed]
    body = table(["image", "label", "before", "after", "kind"], rows, right=(0,))
    block = details(f"{len(listed)} of {count:,} characters that flipped", body)
    if evidence.flipped is not None:
        return block
    return (
        f"The evidence holds no pictures of the characters that flipped; gate again with `--data` for them.\n\n{block}"
    )


def _answer(flip: Flip, which: int) -> str:
    return f"{code((flip.before, flip.after)[which])} {flip.confidence[which]:.0%}"


def _provenance(judgement: Judgement) -> str:
    files = [judgement.baseline, *(judged.file for judged in judgement.candidates)]
    lines = [f"- {code(file.name)}: {file.bytes:,} bytes, sha256 {code(file.sha256)}" for file in files]
    tools = ", ".join(f"{name} {version}" for name, version in judgement.tools.items())
    return details("files and tools", "\n".join(lines) + f"\n\n{text(tools)}")
