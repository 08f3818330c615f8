"""Evaluations, comparisons, verdicts and plans as lines on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from toolchain.core.quantities import POINTS, counted, percent_text, points_text, size_text, sure_text, time_text
from toolchain.evaluation.class_groups import GroupMetrics
from toolchain.evaluation.compare import Comparison
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.metrics import Averages, Metrics
from toolchain.evaluation.mistakes import Mistake
from toolchain.gate.limit import Part, Verdict
from toolchain.report.judgement import Judgement, allowed_text, value_text
from toolchain.report.per_class import per_class_table
from toolchain.report.tables import STYLE, plain_table, print_lines, shown, unfold
from toolchain.stats.decision import Outcome

if TYPE_CHECKING:
    # Only a plan needs them, and they are slow to import.
    from toolchain.gate.plan import Plan, PolicyPlan

# A wider matrix is read by programs only; `--json` holds it.
_MATRIX_CLASSES = 16
# Enough to see what is wrong; `--verdict` holds every part.
_PARTS = 10


def show_evaluation(evaluation: Evaluation, metrics: Metrics, console: Console) -> None:
    """Print the accuracy of one artifact, the metrics of each class, and what it confuses."""
    unfold(console)
    facts, low, high = evaluation.facts, *map(percent_text, metrics.interval)
    lines = [
        f"artifact   {evaluation.artifact}  {size_text(evaluation.artifact_bytes)}  on {facts.target} "
        f"({facts.runtime} {facts.version}, {facts.threads} threads)",
        f"data       {evaluation.origin}  {metrics.images:,} images{_copies(metrics.copies)}, "
        f"{len(evaluation.classes)} classes",
        f"input      {evaluation.preprocess} ({evaluation.preprocess_source or 'source not recorded'})"
        f"{', one image at a time, since it answers otherwise in a batch' if evaluation.one_by_one else ''}",
        f"accuracy   {percent_text(metrics.accuracy)}  95 % interval {low} to {high}  ({metrics.right:,} right)",
        f"macro      {_averages(metrics.macro)}",
        f"micro      {_averages(metrics.micro)}",
    ]
    if metrics.kappa is not None:
        lines.append(f"kappa      {metrics.kappa:.4f}  agreement with the labels beyond chance")
    lines += [f"{group.name:11}{_share(group)}" for group in metrics.kinds]
    confused = [f"{pair.truth} read as {pair.read}: {pair.count}" for pair in metrics.confusions]
    lines += [f"confused   {', '.join(confused)}"] if confused else []
    print_lines(console, lines)
    console.print()
    console.print(per_class_table(metrics))
    if metrics.look_alikes:
        console.print()
        console.print(_look_alikes(metrics))
    if len(evaluation.classes) <= _MATRIX_CLASSES:
        console.print()
        console.print(_matrix(evaluation.classes, metrics))


def show_mistakes(mistakes: tuple[Mistake, ...], console: Console) -> None:
    """Print a row for each mistake: which image, what it is, what it was read as, and both probabilities."""
    table = plain_table(("image", "truth", "read as", "sure", "truth had"), left=("truth", "read as"))
    for mistake in mistakes:
        shares = percent_text(mistake.confidence), percent_text(mistake.truth_confidence)
        table.add_row(f"{mistake.index:,}", shown(mistake.truth), shown(mistake.read), *shares)
    console.print()
    console.print(table)


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print what a candidate lost and gained against its baseline."""
    unfold(console)
    low, high = (points_text(bound, 3) for bound in comparison.interval)
    lines = [
        f"baseline   {comparison.baseline}  {percent_text(comparison.baseline_accuracy)}"
        + f"  takes {comparison.baseline_input}" * bool(comparison.baseline_input),
        f"candidate  {comparison.candidate}  {percent_text(comparison.candidate_accuracy)}"
        + f"  takes {comparison.candidate_input}" * bool(comparison.candidate_input),
        f"images     {comparison.images:,} of {comparison.origin}{_copies(comparison.copies)}: "
        f"{comparison.lost:,} lost, {comparison.gained:,} "
        f"gained, {counted(comparison.flips, 'answer')} changed",
        f"drop       {points_text(comparison.drop, 3)} pp  95 % interval {low} to {high} pp  "
        f"at most {points_text(comparison.upper, 3)} pp with 95 % confidence",
    ]
    worst = [
        f"{row.label} {points_text(row.drop)} pp ({row.lost} lost, {row.gained} gained)" for row in comparison.worst()
    ]
    lines += [f"worst      {', '.join(worst)}"] if worst else []
    lines += [f"confused   {', '.join(map(str, comparison.confusions))}"] if comparison.confusions else []
    print_lines(console, lines)


def show_verdicts(verdicts: Iterable[Verdict], console: Console) -> None:
    """Print one line per verdict: outcome, limit and reason; below one that is not PASS, its open parts."""
    unfold(console)
    console.print()
    for verdict in verdicts:
        outcome = shown(f"{verdict.outcome:<12} ", style=STYLE[verdict.outcome])
        warns = " (only warns)" if verdict.action == "warn" else ""
        console.print(outcome + shown(f"{verdict.limit}{warns}: {verdict.reason}"))
        print_lines(console, _open_parts(verdict))


def show_plugins(judgement: Judgement, console: Console) -> None:
    """Print every plug-in whose code took part; nothing if there is none."""
    print_lines(console, [f"plug-in    {plugin} took part" for plugin in judgement.plugins])


def show_winner(judgement: Judgement, console: Console) -> None:
    """Print which of several candidates ships, or that none does; nothing if there is only one."""
    if len(judgement.candidates) < 2:
        return
    candidates = judgement.candidates
    winner = next((judged for judged in candidates if judged.file.name == judgement.winner), None)
    if winner is None:
        outcomes = ", ".join(f"{judged.file.name} {judged.outcome}" for judged in candidates)
        text = f"none of {len(candidates)} candidates: {outcomes}"
    else:
        speed = "" if winner.p50 is None else f", p50 {time_text(winner.p50)}"
        text = f"{winner.file.name}  {size_text(winner.file.bytes)}{speed}, of {len(candidates)} candidates"
    print_lines(console, ["", f"winner     {text}"])


def _open_parts(verdict: Verdict) -> list[str]:
    """Return a line for each part that did not pass, the failed ones first."""
    parts = sorted((part for part in verdict.parts if part.outcome is not Outcome.PASS), key=_failed_first)
    lines = [
        f"  {part.outcome:<12} {part.name}  {value_text(verdict.limit, part.measured)}  "
        f"bound {value_text(verdict.limit, part.bound)}  {allowed_text(verdict.limit, part.threshold)}"
        + (f"  {part.note}" if part.note else "")
        for part in parts[:_PARTS]
    ]
    return lines + [f"  and {len(parts) - _PARTS} more parts without a PASS"] * (len(parts) > _PARTS)


def _failed_first(part: Part) -> tuple[bool, float]:
    return part.outcome is not Outcome.FAIL, part.threshold - part.measured


def _copies(copies: int) -> str:
    """Return what follows a number of images where there were copies of them, which count for nothing."""
    return f" (and {copies:,} {'copies' if copies > 1 else 'copy'} of them, not counted)" if copies else ""


def _averages(averages: Averages) -> str:
    return (
        f"precision {percent_text(averages.precision)}  recall {percent_text(averages.recall)}  "
        f"F1 {percent_text(averages.f1)}"
    )


def _share(group: GroupMetrics) -> str:
    low, high = map(percent_text, group.interval)
    return f"{percent_text(group.accuracy)}  95 % interval {low} to {high}  ({group.right:,} of {group.images:,} right)"


def _look_alikes(metrics: Metrics) -> Table:
    table = plain_table(("look-alikes", "images", "right", "accuracy", "read as each other"), left=("look-alikes",))
    for group in metrics.look_alikes:
        counts = f"{group.images:,}", f"{group.right:,}"
        within = f"{group.within:,} ({percent_text(group.within / group.images)})"
        table.add_row(shown(group.name), *counts, percent_text(group.accuracy), within)
    return table


def _matrix(classes: tuple[str, ...], metrics: Metrics) -> Table:
    table = plain_table(("truth", *classes), left=("truth",))
    for label, counts in zip(classes, metrics.confusion.tolist(), strict=True):
        table.add_row(shown(label), *(str(count) if count else "." for count in counts))
    return table


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan; `-` stands for a true drop that is impossible at that discordance."""
    unfold(console)
    margin = f"{POINTS.text(plan.margin)} at {sure_text(plan.confidence)} confidence"
    truth = f"{POINTS.text(plan.drop)}, on {plan.discordance * 100:.4g} % of the images only one of the two is right"
    lines = [f"margin     {margin}", f"true drop  {truth}"]
    lines += [f"needed     about {size.images:,} images for {size.power * 100:.4g} % power" for size in plan.needed]
    print_lines(console, [*lines, ""])
    console.print(_chances(plan))


def show_policy_plan(plan: PolicyPlan, console: Console) -> None:
    """Print how often a candidate without a drop passes each limit of a policy, and all of them."""
    unfold(console)
    truth = f"0pp, on {plan.discordance * 100:.4g} % of the images only one of the two is right"
    lines = [f"true drop  {truth}", f"simulated  {plan.draws:,} candidates, {plan.classes} classes with as many images"]
    lines += [f"left out   {', '.join(plan.left_out)}"] if plan.left_out else []
    for size in plan.needed:
        alone = ", ".join(f"{name} alone {_images(count)}" for name, count in size.limits.items())
        lines.append(f"needed     about {_images(size.all)} images for {size.power * 100:.4g} % power ({alone})")
    print_lines(console, [*lines, ""])
    headings = ("images", *(f"{name} PASS" for name in plan.rows[0].passes), "all PASS", "wrong FAIL")
    table = plain_table(headings, left=())
    for row in plan.rows:
        chances = (*row.passes.values(), row.all_pass, row.wrong_fail)
        table.add_row(f"{row.images:,}", *(f"{chance * 100:.1f} %" for chance in chances))
    console.print(table)


def _images(count: int | None) -> str:
    from toolchain.gate.plan import MOST_SIMULATED

    return f"more than {MOST_SIMULATED:,}" if count is None else f"{count:,}"


def _chances(plan: Plan) -> Table:
    headings = ("images", "PASS", "wrong FAIL", "FAIL at twice the margin", "wrong PASS at the margin")
    table = plain_table(headings, left=())
    for row in plan.rows:
        chances = (row.right_pass, row.false_fail, row.right_fail, row.false_pass)
        table.add_row(f"{row.images:,}", *("-" if chance is None else f"{chance * 100:.1f} %" for chance in chances))
    return table
