"""The pictures on pages, each with the sentence that says how to read it, from what a press or a gate already holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from targets.artifact import Artifact
from targets.errors import TargetError
from targets.session import Operator, Timings
from toolchain.core.errors import GlyphpressError
from toolchain.core.quantities import counted, percent_text
from toolchain.evaluation.compare import Comparison, Pairs
from toolchain.evaluation.metrics import confusion_matrix
from toolchain.explain.explanation import LayerError
from toolchain.gate.gate import Evidence
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import policy_from
from toolchain.profiling.per_operator import Breakdown
from toolchain.quantize.ranges import Ranges
from toolchain.report.charts.class_change import class_change_svg
from toolchain.report.charts.confusion import confusion_svg
from toolchain.report.charts.ecdf import ecdf_svg
from toolchain.report.charts.histogram import ranges_svg
from toolchain.report.charts.layers import layer_error_svg, operator_time_svg
from toolchain.report.charts.network import boxes, network_svg
from toolchain.report.charts.pareto import Measure, Point, pareto_svg, points
from toolchain.report.charts.reliability import reliability_svg
from toolchain.report.charts.runs import runs_svg
from toolchain.report.page.blocks import Block, Folded, Gallery, Picture, Text, Tile, Tone
from toolchain.report.page.tables import named
from toolchain.report.pull_request import Flip, Kind, flips
from toolchain.report.report import Report
from toolchain.report.runs import RunLine

WIDE, NARROW = 720, 358
"""Units of a picture on a desktop and on a screen of 390 pixels, less the margins of the page."""
_TILES = 24
"""Characters that are shown of the file to ship, and of each other file half as many."""
_TONES: dict[Kind, Tone] = {"lost": "fail", "gained": "pass", "other": ""}
_MEANING = {"lost": "only float is right", "gained": "only this file is right", "other": "both are wrong"}


def _drawn(draw: Callable[[int], str], caption: str) -> Picture:
    """Return a picture drawn for both widths; once if they are the same."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return Picture(wide, caption, narrow if narrow != wide else "")


def pareto_picture(report: Report) -> Picture | None:
    """Return size against cost of every file, None if fewer than two have a cost."""
    shown, measure = points(report)
    if sum(point.cost is not None for point in shown) < 2:
        return None
    limit = policy_from(report.policy).settings(DropLimit) if report.policy else None
    cost = {"ratio": "time as a share of float's", "ns": "median time", "instructions": "instructions"}[measure]
    caption = (
        f"Each file by its size and its {cost}; further left and lower is better. Bars are 95 % intervals. Below: how "
        "much accuracy each file loses."
    )
    margin = limit.max if limit else None
    return _drawn(lambda width: pareto_svg(shown, measure, margin=margin, width=width), caption)


def points_picture(shown: Sequence[Point], measure: Measure) -> Picture | None:
    """Return size against cost of files that were not judged, None if fewer than two have a cost."""
    if sum(point.cost is not None for point in shown) < 2:
        return None
    caption = "Each file by its size and its cost; further left and lower is better."
    return _drawn(lambda width: pareto_svg(shown, measure, width=width), caption)


def operators_picture(breakdown: Breakdown) -> Picture:
    """Return the slowest operators of a file with their shares of the time."""
    caption = (
        f"{breakdown.artifact.path.name} on {breakdown.target}: the slowest operators, by the runtime's own profiler, "
        "whose own work is in the times."
    )
    return _drawn(lambda width: operator_time_svg(breakdown.operators, width=width), caption)


def latency_picture(timings: Sequence[tuple[str, Timings]]) -> Picture | None:
    """Return the distribution of every file's latencies, None without timings."""
    if not timings:
        return None
    caption = (
        "For each latency the share of inferences that took at most so long. A curve further left is faster; a steep "
        "one is steady. The time in which the system ran other processes amid an inference is left out."
    )
    return _drawn(lambda width: ecdf_svg(timings, width=width), caption)


def timed(evidence: Sequence[Evidence]) -> list[tuple[str, Timings]]:
    """Return names and timings of the baseline and of every candidate that was timed on a device."""
    files = [(proof.pairs.candidate.name, proof.timings) for proof in evidence]
    if evidence:
        files.insert(0, (evidence[0].pairs.baseline.name, evidence[0].baseline_timings))
    return [(name, timings) for name, timings in files if timings and not timings.facts.simulated]


def confusion_picture(pairs: Pairs) -> Picture:
    """Return how often each class is read as each other one, as the difference of candidate and baseline."""
    size = len(pairs.classes)
    before, after = (confusion_matrix(pairs.labels, answers, size) for answers in (pairs.before, pairs.after))
    caption = (
        f"{pairs.candidate.name} less {pairs.baseline.name}, on {len(pairs):,} images: rows are what a character is, "
        "columns as what it is read."
    )
    return _drawn(lambda width: confusion_svg(before, after, pairs.classes, width=width), caption)


def operators_block(operators: Breakdown | str | None) -> Block | None:
    """Return the times of a file's operators, or a text that says why they are not known; None without a file."""
    if operators is None:
        return None
    return operators_picture(operators) if isinstance(operators, Breakdown) else Text(f"Not known: {operators}.")


def layer_blocks(
    file: Artifact | None, layers: Sequence[LayerError] | str, operators: Breakdown | str | None = None
) -> list[Block]:
    """Return the errors of a file's layers, and a drawing of its network; a text where either is not known.

    operators: with their times the drawing shows that of each layer.
    """
    if file is None:
        return []
    blocks: list[Block] = []
    if isinstance(layers, str):
        blocks.append(Text(f"Errors by layer are not known: {layers}."))
    elif layers:
        caption = (
            f"{file.path.name} against the float file that it was made from: signal to quantization noise of each "
            "layer. The bar is the layer alone, the line across it the layer with the errors of those before it. "
            "Longer is better. Found on a few training images; `glyphpress explain` takes others, and more."
        )
        blocks.append(_drawn(lambda width: layer_error_svg(layers, width=width), caption))
    return [*blocks, network_block(file, operators.operators if isinstance(operators, Breakdown) else ())]


def network_block(file: Artifact, operators: Sequence[Operator] = ()) -> Block:
    """Return a drawing of a file's layers, folded; a text where they cannot be read. operators: with their times."""
    try:
        drawn = boxes(file, operators)
    except (GlyphpressError, TargetError) as error:
        return Text(f"The network of {file.path.name} could not be drawn: {error}.")
    caption = (
        f"The layers of {file.path.name} from the image down: shape of the result, types of weights and values. "
        f"The command netron {file.path.name} shows the whole graph."
    )
    picture = _drawn(lambda width: network_svg(drawn, width=width), caption)
    return Folded(f"The network of {file.path.name}: {counted(len(drawn), 'layer')} with weights", [picture])


def ranges_picture(ranges: Ranges | None) -> Picture | None:
    """Return the ranges that a file was calibrated with, None without any."""
    if ranges is None:
        return None
    caption = (
        "What each tensor held on the calibration images, and between the lines what is kept of it; what lies outside "
        "is clipped."
    )
    return _drawn(lambda width: ranges_svg(ranges, width=width), caption)


def runs_picture(lines: Sequence[RunLine]) -> Picture:
    """Return the figures of each file from run to run."""
    caption = (
        "Each file from the first run down to the last, with 95 % intervals. Dashed: no drop, and float's time. What a "
        "line joins may be compared; what may not is hollow, and the tables say why."
    )
    return _drawn(lambda width: runs_svg(lines, width=width), caption)


def class_picture(comparison: Comparison) -> Picture | None:
    """Return what the classes that changed most lost and gained, None if fewer than two changed."""
    if sum(bool(row.lost or row.gained) for row in comparison.per_class) < 2:
        return None
    caption = f"{comparison.candidate} against {comparison.baseline}: the classes that changed most."
    return _drawn(lambda width: class_change_svg(comparison.per_class, width=width), caption)


def reliability_picture(pairs: Pairs) -> Picture:
    """Return how often the answers of each confidence are right, for both files."""
    caption = (
        f"{pairs.candidate.name} and {pairs.baseline.name}: of the answers given with a confidence, the share that is "
        "right. On the diagonal the confidence can be taken at its word."
    )
    return _drawn(lambda width: reliability_svg(pairs, width=width), caption)


def flipped_blocks(evidence: Evidence, most: int = _TILES) -> list[Block]:
    """Return pictures of the characters whose answer changed, the lost ones first; a text if there are none."""
    count = int(evidence.pairs.flipped.sum())
    if not count:
        return [Text(f"{evidence.pairs.candidate.name}: no answer changed.")]
    shown = [flip for flip in flips(evidence, most) if flip.picture is not None]
    if not shown:
        return [Text(f"{counted(count, 'answer')} changed; the evidence holds no pictures of them.")]
    of = f"{len(shown)} of the {count:,}" if len(shown) < count else f"the {count:,}" if count > 1 else "the one"
    characters = "character" if count == 1 else "characters"
    about = (
        f"{evidence.pairs.candidate.name}: {of} {characters} whose answer changed. Label, then the "
        "answer before and after, each with its confidence."
    )
    return [Text(about), Gallery("Characters whose answer changed", [_tile(flip) for flip in shown])]


def flipped_folded(evidence: Sequence[Evidence]) -> list[Block]:
    """Return the same of other files, folded, with fewer pictures; nothing of a file that changed no answer."""
    changed = [proof for proof in evidence if proof.pairs.flipped.any()]
    return [Folded(proof.pairs.candidate.name, flipped_blocks(proof, _TILES // 2)) for proof in changed]


def _tile(flip: Flip) -> Tile:
    assert flip.picture is not None
    answers = [
        f"{named(answer)} ({percent_text(confidence, 0)})"
        for answer, confidence in zip((flip.before, flip.after), flip.confidence, strict=True)
    ]
    label = named(flip.label)
    lines = [f"is {label}", " → ".join(answers), f"{flip.kind}: {_MEANING[flip.kind]}"]
    return Tile(flip.picture, f"Image {flip.image}, a handwritten {label}", lines, _TONES[flip.kind])
