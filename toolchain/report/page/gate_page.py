"""The page of a gate: what it concluded of each candidate, and the pictures of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from targets.host.text import shell_command
from toolchain.core.quantities import percent_text, points_text, size_text, sure_text, time_text
from toolchain.gate.gate import Evidence
from toolchain.gate.limit import overall
from toolchain.report.judgement import Judged, Judgement
from toolchain.report.page.blocks import (
    TONES,
    Block,
    Cell,
    Code,
    Facts,
    Figure,
    Folded,
    Page,
    Ruling,
    Section,
    Table,
    Tone,
    figure,
    section,
)
from toolchain.report.page.draw import html
from toolchain.report.page.links import file_link, seen_from
from toolchain.report.page.pictures import (
    class_picture,
    confusion_picture,
    flipped_blocks,
    latency_picture,
    reliability_picture,
    timed,
)
from toolchain.report.page.tables import classes_blocks, digests_table, limits_blocks, outcome_cell, plain
from toolchain.report.page.wording import reading_words, sentences, size_words
from toolchain.stats.decision import Outcome

_Show = Callable[[Judged, Evidence], list[Block]]
_STATUS = {Outcome.PASS: "May ship", Outcome.FAIL: "Must not ship", Outcome.INCONCLUSIVE: "Not decided"}


def gate_html(
    judgement: Judgement, evidence: Sequence[Evidence], path: Path | None = None, command: Sequence[str] = ()
) -> str:
    """Return the page as an HTML document.

    evidence: of each candidate, in the judgement's order. path: where the page will lie, for links to the candidates;
    without it there are none. command: the command line that made it.
    """
    best, proof = _first(judgement, evidence)
    sections = [
        *section("candidates", "Candidates", _candidates(judgement, path)),
        *section(
            "limits", "Limits", *limits_blocks((judged.file.name, one) for judged, one, _ in judgement.verdicts())
        ),
        *_shown_of_each("classes", "Change by class", judgement, evidence, _classes),
        *section("confusions", "Confusions, before and after", confusion_picture(proof.pairs)),
        *_shown_of_each("flipped", "Characters whose answer changed", judgement, evidence, _flipped),
        *section("latency", "Latency", latency_picture(timed(evidence))),
        *section("reliability", "Confidence", reliability_picture(proof.pairs)),
        *section("machine", "What ran where", _places(judgement)),
        *section("versions", "Versions and digests", *_versions(judgement)),
        *section("policy", "Policy", _policy(judgement)),
        *section("commands", "Do it again", Code("The gate", [shell_command(command)]) if command else None),
    ]
    title = f"{best.file.name} against {judgement.baseline.name}"
    if len(judgement.candidates) > 1:
        title = f"{len(judgement.candidates)} candidates against {judgement.baseline.name}"
    compared = best.comparison
    subtitle = f"Gate on {compared.images:,} images of {compared.origin}, {len(compared.per_class)} classes."
    page = Page(title, subtitle, _ruling(judgement, best, path), tuple(_figures(judgement, best)), sections)
    return html(page, judgement.tools)


def _first(judgement: Judgement, evidence: Sequence[Evidence]) -> tuple[Judged, Evidence]:
    """Return the candidate that may ship, or the first one that decided the outcome, and its evidence."""
    pairs = list(zip(judgement.candidates, evidence, strict=True))
    deciding = [pair for pair in pairs if pair[0].outcome is judgement.outcome]
    return next((pair for pair in pairs if pair[0].file.name == judgement.winner), (deciding or pairs)[0])


def _ruling(judgement: Judgement, best: Judged, path: Path | None) -> Ruling:
    compared, tone = best.comparison, TONES[judgement.outcome]
    shrink = compared.baseline_bytes / compared.candidate_bytes if compared.candidate_bytes else None
    reading = reading_words(
        compared.candidate_accuracy,
        compared.baseline_accuracy,
        judgement.most_lost(best),
        compared.images,
        confidence=judgement.confidence,
    )
    if len(judgement.candidates) > 1 and judgement.outcome is not Outcome.PASS:
        reading = f"{best.file.name}: {reading[0].lower()}{reading[1:]}"
    if judgement.outcome is Outcome.PASS:
        first = f"{best.file.name} may ship in place of {judgement.baseline.name}: it is {size_words(shrink)} it."
    else:
        reasons = [
            f"{verdict.limit}: {verdict.reason}."
            for verdict in best.verdicts
            if verdict.outcome is judgement.outcome and verdict.action == "fail"
        ]
        none = "No candidate" if len(judgement.candidates) > 1 else best.file.name
        verb = "passes" if len(judgement.candidates) > 1 else "does not pass"
        if judgement.outcome is Outcome.INCONCLUSIVE:
            verb = "is shown to pass" if len(judgement.candidates) > 1 else "is not shown to pass"
        first = f"{none} {verb}. {reasons[0] if reasons else ''}"
    link = _link(best, path).link if judgement.outcome is Outcome.PASS else None
    about = f"{size_text(best.file.bytes)}, sha256 {best.file.sha256[:12]}…"
    return Ruling(_STATUS[judgement.outcome], tone, sentences([first.strip(), reading]), link, about if link else "")


def _link(judged: Judged, path: Path | None) -> Cell:
    """Return the cell of a candidate's name, with a link where its file lies on this machine."""
    file = Path(judged.path)
    if path is None or not file.is_file() or file.suffix == ".npz":
        return Cell(judged.file.name)
    return Cell(judged.file.name, link=file_link(file.name, seen_from(path, file.parent)))


def _figures(judgement: Judgement, best: Judged) -> Iterator[Figure]:
    """Yield the candidate's key figures, each in the colour of the limits on it."""
    compared = best.comparison
    note = f"baseline {size_text(compared.baseline_bytes)}"
    yield Figure("Size", size_text(compared.candidate_bytes), note, _tone(best, "size", "shrink", "packed"))
    note = f"baseline {percent_text(compared.baseline_accuracy)}"
    yield Figure("Accuracy", percent_text(compared.candidate_accuracy), note)
    most = f"at most {points_text(judgement.most_lost(best))} pp"
    note = f"with {sure_text(judgement.confidence)} confidence; measured {points_text(compared.drop)} pp"
    yield Figure("Drop in accuracy", most, note, _tone(best, "drop"))
    if best.p50 is not None:
        tone = _tone(best, "p50", "p50_ratio")
        yield Figure("Time per image, median", time_text(best.p50), tone=tone)


def _tone(best: Judged, *limits: str) -> Tone:
    """Return the colour of the verdicts on these limits; none where there are none."""
    verdicts = [verdict for verdict in best.verdicts if verdict.limit in limits]
    return TONES[overall(verdicts)] if verdicts else ""


def _candidates(judgement: Judgement, path: Path | None) -> Table:
    rows = []
    for judged in judgement.candidates:
        compared, name = judged.comparison, _link(judged, path)
        ships = "ships" if judged.file.name == judgement.winner else ""
        rows.append(
            [
                Cell(name.text, mark=ships, link=name.link),
                figure(judged.file.bytes, size_text),
                figure(compared.candidate_accuracy, percent_text),
                figure(compared.drop, lambda drop: f"{points_text(drop, 3)} pp"),
                figure(judgement.most_lost(judged), lambda bound: f"{points_text(bound, 3)} pp"),
                figure(compared.flips, lambda flips: f"{flips:,}"),
                figure(judged.p50, time_text),
                outcome_cell(judged.outcome),
            ]
        )
    headings = ("candidate", "size", "accuracy", "drop", "drop at most", "changed answers", "P50", "verdict")
    sure = f"drop at most: with {sure_text(judgement.confidence)} confidence"
    choice = f"; every confidence is corrected for a choice among {judgement.competitors}" * (judgement.competitors > 1)
    caption = f"against {judgement.baseline.name}; {sure}{choice}"
    return Table(caption, headings, rows, headings[1:-1], wide=True, sortable=len(rows) > 1)


def _shown_of_each(
    ident: str, heading: str, judgement: Judgement, evidence: Sequence[Evidence], show: _Show
) -> list[Section]:
    """Return a section on the first candidate, and the same on each other one, folded."""
    best, _ = _first(judgement, evidence)
    pairs = list(zip(judgement.candidates, evidence, strict=True))
    others = [Folded(judged.file.name, show(judged, proof)) for judged, proof in pairs if judged is not best]
    first = next(show(judged, proof) for judged, proof in pairs if judged is best)
    return section(ident, heading, *first, *others)


def _classes(judged: Judged, _: Evidence) -> list[Block]:
    picture = class_picture(judged.comparison)
    return [*classes_blocks(judged.comparison), *([picture] if picture else [])]


def _flipped(_: Judged, evidence: Evidence) -> list[Block]:
    return flipped_blocks(evidence)


def _places(judgement: Judgement) -> Table:
    rows = []
    for file in (judgement.baseline, *(judged.file for judged in judgement.candidates)):
        facts = file.runtime
        runtime = f"{facts.runtime} {facts.version}"
        rows.append((file.name, facts.target, runtime, facts.device, str(facts.threads), file.input))
    headings = ("file", "target", "runtime", "device", "threads", "takes images")
    return plain("Where each file gave its answers", headings, rows, wide=True)


def _versions(judgement: Judgement) -> list[Block | None]:
    plugins = [("Plug-in", str(plugin)) for plugin in judgement.plugins]
    tools = Facts([*judgement.tools.items(), *plugins]) if judgement.tools or plugins else None
    files = (judgement.baseline, *(judged.file for judged in judgement.candidates))
    images = Facts([("Test images", f"sha256 {judgement.candidates[0].comparison.dataset_sha256}")])
    return [tools, images, digests_table((file.name, file.bytes, None, file.sha256) for file in files)]


def _policy(judgement: Judgement) -> Facts:
    return Facts([(f"[{name}]", _settings(table)) for name, table in judgement.policy.items()])


def _settings(table: object) -> str:
    if not isinstance(table, dict):
        return str(table)
    return ", ".join(f"{key} = {value}" for key, value in table.items())
