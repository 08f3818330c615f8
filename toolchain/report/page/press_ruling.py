"""The verdict on a press in one sentence, and its key figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolchain.core.quantities import percent_text, points_text, size_text, sure_text, time_text
from toolchain.report.page.blocks import TONES, Figure, Link, Ruling, Tone
from toolchain.report.page.links import file_link
from toolchain.report.page.wording import joined, reading_words, sentences, size_words, time_words
from toolchain.report.report import Report, Row
from toolchain.report.rows import competing_rows
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import upper_bound

_BETTER = {
    "balanced": "is smaller, is not shown to be slower, and passes",
    "size": "is smaller and passes",
    "speed": "is faster and passes",
}


def press_ruling(report: Report, folder: str) -> Ruling:
    """Return what the press concludes. folder: of its files, seen from the page."""
    best = shipped_row(report)
    if best is None:
        status, tone, sentence = _without_winner(report)
        return Ruling(status, tone, sentences([sentence, _missing(report)]))
    others = [row for row in report.rows if row is not best and not row.added]
    if best.recipe == "float":
        status, tone = "Keep the float model", "unsure"
        first = (
            f"Ship {best.name}, the float file: no pressed file {_BETTER.get(report.prefer, 'is better and passes')}."
        )
    else:
        status, tone = "Ready to ship", "pass"
        first = f"Ship {best.name}: {joined(list(_gains(best)))}."
    sentence = sentences([first, _accuracy(best, report), _not_passed(others), _missing(report), _busy(report)])
    link: Link = file_link(best.name, folder)
    place = "beside this page" if folder in ("", ".") else f"in {folder}"
    about = f"{size_text(best.bytes)}, sha256 {best.sha256[:12]}…, {place}"
    return Ruling(status, tone, sentence, link, about)


def _busy(report: Report) -> str:
    marked = any(note.startswith("NOT QUIET") for note in report.notes)
    return "The machine was not quiet while files were timed." if marked else ""


def shipped_row(report: Report) -> Row | None:
    """Return the row of the file that won, or None."""
    return next((row for row in report.rows if row.winner), None)


def press_figures(report: Report) -> tuple[Figure, ...]:
    """Return the key figures of the file that won; none if no pressed file did."""
    best = shipped_row(report)
    if best is None or best.baseline:
        return ()
    base = report.rows[0]
    figures = [
        Figure("Size", size_text(best.bytes), f"{size_words(best.shrink)} float's {size_text(base.bytes)}"),
        Figure("Accuracy", percent_text(best.accuracy), f"float {percent_text(base.accuracy)}"),
    ]
    bound, confidence = _most_lost(best, report)
    if bound is not None:
        tone: Tone = TONES.get(best.outcome, "") if best.outcome else ""
        note = f"with {sure_text(confidence)} confidence; measured {points_text(best.drop or 0.0)} pp"
        figures.append(Figure("Drop in accuracy", f"at most {points_text(bound)} pp", note, tone))
    return (*figures, *_cost_figure(best, base))


def _cost_figure(best: Row, base: Row) -> Iterator[Figure]:
    if best.instructions is not None and best.instructions_ratio is not None:
        note = f"{best.instructions_ratio:.2f} of float's"
        yield Figure("Instructions per image", f"{best.instructions:,.0f}", note)
    elif best.p50_ns is not None and best.p50_ratio is not None:
        interval = best.p50_ratio_interval
        ends = [f"{end:.2f}" for end in interval or ()]
        spread = f" ({' to '.join(ends)})" if len({*ends}) > 1 else ""
        note = f"{best.p50_ratio:.2f}{spread} of float's {time_text((base.p50_ns or 0) / 1e9)}"
        yield Figure("Time per image, median", time_text(best.p50_ns / 1e9), note)


def _gains(best: Row) -> Iterator[str]:
    """Yield what the file gains or loses against the float baseline in size and cost."""
    if best.shrink is not None:
        yield f"it is {size_words(best.shrink)} the float file"
    if best.instructions_ratio is not None:
        yield f"takes {best.instructions_ratio:.2f} of its instructions"
    elif best.p50_ratio is not None:
        yield time_words(best.p50_ratio, best.p50_ratio_interval)


def _accuracy(best: Row, report: Report) -> str:
    bound, confidence = _most_lost(best, report)
    if best.baseline or bound is None:
        return f"It reads {percent_text(best.accuracy)} of {best.images:,} test images correctly."
    return reading_words(best.accuracy, report.rows[0].accuracy, bound, best.images, confidence=confidence)


def _most_lost(best: Row, report: Report) -> tuple[float | None, float]:
    """Return the upper bound of the winner's drop and its confidence: 95 %, corrected for the choice it won."""
    confidence = 1 - 0.05 / max(len(competing_rows(report.rows)), 1)
    compared = next((each for each in report.comparisons if each.candidate == best.name), None)
    if compared is None:
        return None, confidence
    return float(upper_bound(compared.lost, compared.gained, compared.images, confidence)), confidence


def _not_passed(rows: Sequence[Row]) -> str:
    counts = {outcome: sum(row.outcome is outcome for row in rows) for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)}
    parts = [
        f"{counts[Outcome.FAIL]} of the other files fail{'s' * (counts[Outcome.FAIL] == 1)}"
        * bool(counts[Outcome.FAIL]),
        f"{counts[Outcome.INCONCLUSIVE]} of the other files could not be decided" * bool(counts[Outcome.INCONCLUSIVE]),
    ]
    return f"{joined([part for part in parts if part])}." if any(parts) else ""


def _missing(report: Report) -> str:
    count = len(report.failures)
    return (
        f"{count} file{'s' * (count != 1)} that {'was' if count == 1 else 'were'} asked for could not be made."
        * bool(count)
    )


def _without_winner(report: Report) -> tuple[str, Tone, str]:
    """Return status, tone and sentence of a press in which no file was chosen."""
    judged = [row for row in report.rows if row.outcome is not None and not row.added]
    passing = [row for row in judged if row.outcome is Outcome.PASS]
    if not judged:
        return "Nothing was judged", "", f"{report.rows[0].name} is the only file that was made."
    if passing:
        which = "All files pass" if len(passing) == len(judged) else f"{len(passing)} of {len(judged)} files pass"
        why = "none was chosen, since no file was quantized or none has a cost to choose by"
        return which, "pass" if len(passing) == len(judged) else "unsure", f"{which}; {why}."
    failed = [row for row in judged if row.outcome is Outcome.FAIL]
    row = (failed or judged)[0]
    verdict = next(one for one in row.verdicts if one.outcome is row.outcome and one.action == "fail")
    reason = f"{row.name}, {verdict.limit}: {verdict.reason}."
    if failed:
        return "Do not ship", "fail", f"No file passes. {reason}"
    return "Not decided", "unsure", f"No file is shown to pass. {reason}"
