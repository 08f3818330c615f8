"""The judgement for a pull request: Markdown, which is a CI job's summary too, and a picture of changed answers.

In the picture a word and the form of the frame say whether an answer was lost or gained, not its colour alone; the
colours are of M. Okabe and K. Ito's palette, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from calibration.dataset import SIDE
from toolchain.core.quantities import percent_text, points_text, size_text, time_text
from toolchain.gate.gate import Evidence
from toolchain.gate.limit import Part, Verdict
from toolchain.report.judgement import Judged, Judgement, allowed_text, value_text
from toolchain.report.tables import DASH, code_span, details, markdown_table, markdown_text
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
            code_span(judged.file.name) + " **ships**" * (judged.file.name == judgement.winner),
            f"**{judged.outcome}**",
            size_text(judged.file.bytes),
            percent_text(judged.comparison.candidate_accuracy),
            f"{points_text(judged.comparison.drop, 3)} pp",
            DASH if judged.p50 is None else time_text(judged.p50),
        ]
        for judged in judgement.candidates
    ]
    choice = f"Every confidence is corrected for a choice among {judgement.competitors}." * (judgement.competitors > 1)
    return "\n\n".join(filter(None, [markdown_table(names, rows, right=(2, 3, 4, 5)), choice]))


def _candidate(judged: Judged, evidence: Evidence, *, heading: bool) -> Iterator[str]:
    if heading:
        yield f"### {code_span(judged.file.name)}: {judged.outcome}"
    yield _summary(judged)
    yield _limits(judged.verdicts)
    yield from (_parts(verdict) for verdict in judged.verdicts if verdict.parts)
    yield _worst(judged)
    yield _stress(evidence)
    yield from _differences(evidence)
    yield _flipped(evidence)


def _summary(judged: Judged) -> str:
    comparison, name = judged.comparison, code_span(judged.file.name)
    shrink = comparison.baseline_bytes / comparison.candidate_bytes
    return (
        f"{name} ({size_text(comparison.candidate_bytes)}, {shrink:.1f}x smaller) reads "
        f"{percent_text(comparison.candidate_accuracy)} of {comparison.images:,} images rightly, "
        f"{code_span(comparison.baseline)} {percent_text(comparison.baseline_accuracy)}: {comparison.lost:,} lost, "
        f"{comparison.gained:,} gained, {comparison.flips:,} answer{'s' * (comparison.flips != 1)} changed. Images: "
        f"{code_span(comparison.origin)}, which {name} takes {markdown_text(comparison.candidate_input)}, "
        f"{code_span(comparison.baseline)} {markdown_text(comparison.baseline_input)}."
    )


def _limits(verdicts: Iterable[Verdict]) -> str:
    rows = [
        [
            verdict.limit + " (only warns)" * (verdict.action == "warn"),
            _bold(verdict.outcome),
            value_text(verdict.limit, verdict.measured),
            value_text(verdict.limit, verdict.bound),
            allowed_text(verdict.limit, verdict.threshold),
            markdown_text(verdict.reason),
        ]
        for verdict in verdicts
    ]
    return markdown_table(["limit", "outcome", "measured", "bound", "allowed", "why"], rows, right=(2, 3, 4))


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
            code_span(part.name),
            _bold(part.outcome),
            value_text(verdict.limit, part.measured),
            value_text(verdict.limit, part.bound),
            allowed_text(verdict.limit, part.threshold),
            f"{part.images:,}",
            markdown_text(part.note),
        ]
        for part in ranked[:_ROWS]
    ]
    body = markdown_table(
        ["part", "outcome", "measured", "bound", "allowed", "images", "counts"], rows, right=(2, 3, 4, 5)
    )
    not_passed = sum(part.outcome is not Outcome.PASS for part in verdict.parts)
    return details(f"{verdict.limit}: {len(ranked)} parts, {not_passed} without a PASS", body + _rest(len(ranked)))


def _rest(count: int) -> str:
    return f"\n\nAnd {count - _ROWS:,} more." if count > _ROWS else ""


def _worst(judged: Judged) -> str:
    """Return the classes with the largest drops, and the new confusions."""
    comparison = judged.comparison
    rows = [
        [code_span(row.label), f"{row.images:,}", f"{row.lost:,}", f"{row.gained:,}", f"{points_text(row.drop)} pp"]
        for row in comparison.worst()
    ]
    confusions = ", ".join(
        f"{code_span(pair.truth)} read as {code_span(pair.read)} +{pair.extra:,}" for pair in comparison.confusions
    )
    tables = (
        [markdown_table(["worst classes", "images", "lost", "gained", "drop"], rows, right=(1, 2, 3, 4))]
        if rows
        else []
    )
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
    return markdown_table(names, rows, right=range(1, len(names)))


def _differences(evidence: Evidence) -> Iterator[str]:
    """Yield, for every other target that the file ran on, which images it reads differently there."""
    for target in evidence.places:
        facts = target.runtime
        runtime = f"{facts.target} ({facts.runtime} {facts.version}, {facts.device})"
        if target.left_out:
            yield f"Not run on {markdown_text(facts.target)}: {markdown_text(target.left_out)}."
            continue
        summary = f"On {runtime}: {target.differing:,} of {target.images:,} images read differently, "
        summary += f"logits differ by at most {target.largest:.2g}"
        rows = [
            [str(answer.image), code_span(answer.truth), code_span(answer.here), code_span(answer.there)]
            for answer in target.differences[:_ROWS]
        ]
        body = markdown_table(["image", "label", "here", "there"], rows, right=(0,)) + _rest(target.differing)
        yield details(summary, body) if rows else f"{markdown_text(summary)}."


def _flipped(evidence: Evidence) -> str:
    """Return the flipped characters as a table that can be opened, and how to get their pictures if there are none."""
    count, listed = int(evidence.pairs.flipped.sum()), flips(evidence)
    if not count:
        return "No answer changed."
    rows = [[str(flip.image), code_span(flip.label), _answer(flip, 0), _answer(flip, 1), flip.kind] for flip in listed]
    body = markdown_table(["image", "label", "before", "after", "kind"], rows, right=(0,))
    block = details(f"{len(listed)} of {count:,} characters that flipped", body)
    if evidence.flipped is not None:
        return block
    return (
        f"The evidence holds no pictures of the characters that flipped; gate again with `--data` for them.\n\n{block}"
    )


def _answer(flip: Flip, which: int) -> str:
    return f"{code_span((flip.before, flip.after)[which])} {flip.confidence[which]:.0%}"


def _provenance(judgement: Judgement) -> str:
    files = [judgement.baseline, *(judged.file for judged in judgement.candidates)]
    lines = [f"- {code_span(file.name)}: {file.bytes:,} bytes, sha256 {code_span(file.sha256)}" for file in files]
    tools = ", ".join(f"{name} {version}" for name, version in judgement.tools.items())
    lines += [f"- plug-in: {markdown_text(str(plugin))}" for plugin in judgement.plugins]
    return details("files and tools", "\n".join(lines) + f"\n\n{markdown_text(tools)}")


Kind = Literal["lost", "gained", "other"]
MOST = 60
"""How many characters are shown of a candidate."""

_INK, _PAPER, _QUIET = "#1a1a1a", "#ffffff", "#595959"
_COLOURS: dict[Kind, str] = {"lost": "#D55E00", "gained": "#0072B2", "other": "#8c8c8c"}
_MEANING: dict[Kind, str] = {
    "lost": "lost: only the baseline is right",
    "gained": "gained: only the candidate is right",
    "other": "other: both are wrong",
}
_SCALE, _FRAME, _GAP, _COLUMNS = 3, 5, 14, 10
_GLYPH = SIDE * _SCALE
_TILE = _GLYPH + 2 * _FRAME
_LINE = 17
_PITCH = (_TILE + _GAP, _TILE + 3 * _LINE + _GAP)
_WIDTH = _COLUMNS * _PITCH[0] + _GAP


@dataclass(frozen=True, eq=False)
class Flip:
    """A character that two files read differently: its index among the test images, label and both answers.

    confidence: the probability that each answer was given with. picture: uint8 [28, 28], white ink on black, None where
    the images were not at hand.
    """

    image: int
    label: str
    before: str
    after: str
    confidence: tuple[float, float]
    kind: Kind
    picture: NDArray[np.uint8] | None = None


def flips(evidence: Evidence, most: int = MOST) -> tuple[Flip, ...]:
    """Return up to `most` characters whose answer changed: the lost ones first, then other, then gained ones."""
    pairs, flipped = evidence.pairs, evidence.flipped
    if flipped is not None:
        indices, pictures = flipped.indices, list(flipped.images)
    else:
        changed = np.flatnonzero(pairs.flipped)
        rank = np.where(pairs.lost[changed], 0, np.where(pairs.gained[changed], 2, 1))
        indices = changed[np.argsort(rank, kind="stable")]
        pictures = [None] * len(indices)
    return tuple(_flip(evidence, int(k), picture) for k, picture in zip(indices[:most], pictures[:most], strict=True))


def _flip(evidence: Evidence, k: int, picture: NDArray[np.uint8] | None) -> Flip:
    pairs = evidence.pairs
    label, before, after = (pairs.classes[int(indices[k])] for indices in (pairs.labels, pairs.before, pairs.after))
    kind: Kind = "lost" if pairs.lost[k] else "gained" if pairs.gained[k] else "other"
    confidence = float(pairs.before_confidence[k]), float(pairs.after_confidence[k])
    return Flip(k, label, before, after, confidence, kind, picture)


def contact_sheet(sheets: Sequence[tuple[str, Sequence[Flip]]]) -> Image.Image:
    """Return one picture of all tiles, a title above each candidate's; flips without a picture have no tile."""
    shown = [(title, [flip for flip in tiles if flip.picture is not None]) for title, tiles in sheets]
    heights = [3 * _LINE + -(-len(tiles) // _COLUMNS) * _PITCH[1] for _, tiles in shown]
    sheet = Image.new("RGB", (_WIDTH, sum(heights) + _GAP), _PAPER)
    draw, top = ImageDraw.Draw(sheet), _GAP
    for (title, tiles), height in zip(shown, heights, strict=True):
        _head(draw, title, top)
        for index, tile in enumerate(tiles):
            row, column = divmod(index, _COLUMNS)
            corner = _GAP + column * _PITCH[0], top + 3 * _LINE + row * _PITCH[1]
            _tile(sheet, draw, tile, *corner)
        top += height
    return sheet


def _head(draw: ImageDraw.ImageDraw, title: str, top: int) -> None:
    """Write the title, and below it what the frames and the lines of a tile mean."""
    draw.text((_GAP, top), _fitting(title, _WIDTH - 2 * _GAP, 16), _INK, _font(16))
    left, line = _GAP, top + _LINE + 4
    for kind, meaning in _MEANING.items():
        _frame(draw, (left, line + 2, left + 22, line + 14), kind, 3)
        draw.text((left + 29, line), meaning, _INK, _font(13))
        left += 29 + round(_font(13).getlength(meaning)) + 24
    draw.text((left, line), "below: label; baseline's answer > candidate's; image", _QUIET, _font(13))


def _tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, flip: Flip, left: int, top: int) -> None:
    # As on paper, dark on light, each pixel a square: nothing is smoothed away.
    ink = Image.fromarray(255 - np.asarray(flip.picture)).resize((_GLYPH, _GLYPH), Image.Resampling.NEAREST)
    sheet.paste(ink, (left + _FRAME, top + _FRAME))
    _frame(draw, (left, top, left + _TILE - 1, top + _TILE - 1), flip.kind, _FRAME)
    middle, line = left + _TILE / 2, top + _TILE + 2
    draw.text((middle, line), _fitting(f"is {_glyphs(flip.label)}", _PITCH[0] - 4, 14), _INK, _font(14), anchor="ma")
    _answers(draw, flip, middle, line + _LINE)
    draw.text((middle, line + 2 * _LINE), f"{flip.kind} #{flip.image}", _QUIET, _font(12), anchor="ma")


def _answers(draw: ImageDraw.ImageDraw, flip: Flip, middle: float, line: float) -> None:
    """Write the baseline's answer, an arrow (which the font does not have) and the candidate's."""
    arrow = 18
    room = (_PITCH[0] - arrow) / 2 - 6
    for edge, answer, anchor in ((-arrow / 2 - 5, flip.before, "ra"), (arrow / 2 + 6, flip.after, "la")):
        draw.text((middle + edge, line), _fitting(_glyphs(answer), room, 14), _INK, _font(14), anchor=anchor)
    y, tip = line + 9, middle + arrow / 2
    draw.line((middle - arrow / 2, y, tip, y), _INK, 2)
    draw.polygon(((tip + 1, y), (tip - 6, y - 4), (tip - 6, y + 4)), _INK)


def _frame(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], kind: Kind, width: int) -> None:
    """Draw a frame: whole and thick for what was lost, only its corners for what was gained, otherwise a thin line."""
    draw.rectangle(box, outline=_COLOURS[kind], width=1 if kind == "other" else width)
    if kind == "gained":
        left, top, right, bottom = box
        x, y = (right - left) // 4, (bottom - top) // 4
        for side in (top, bottom - width + 1):
            draw.rectangle((left + x, side, right - x, side + width - 1), _PAPER)
        for side in (left, right - width + 1):
            draw.rectangle((side, top + y, side + width - 1, bottom - y), _PAPER)


def _fitting(text: str, width: float, size: int) -> str:
    """Return a text, or as much of its beginning as fits into `width` pixels."""
    text = _glyphs(text)
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _glyphs(text: str) -> str:
    """Return a text with characters that the font lacks, or a text of spaces alone, as numbers: U+00E9."""
    if not text.strip():
        return " ".join(f"U+{ord(character):04X}" for character in text) or "nothing"
    return "".join(character if _drawable(character) else f"U+{ord(character):04X}" for character in text)


@cache
def _drawable(character: str) -> bool:
    font = _font(16)
    return character.isascii() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(size)
