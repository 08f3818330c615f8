"""The rows of a report: each file as it was read, timed, counted and judged, against the others; and which one wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from targets.artifact import Artifact
from targets.catalog import get
from targets.session import Instructions
from toolchain.core.quantities import size_text
from toolchain.evaluation.compare import comparison
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.timings import LatencyRatio
from toolchain.formats.inspection import shown_size
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.limit import overall
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import Profile
from toolchain.profiling.measurements import reasons_for
from toolchain.report.report import Row
from toolchain.stats.decision import Outcome

Prefer = Literal["balanced", "size", "speed"]
"""balanced: the smallest file that is not shown to be slower than float; size: the smallest; speed: the fastest."""
_MEASURES: tuple[Prefer, ...] = get_args(Prefer)
_TOLERANCE = 1.05
"""Sizes and costs that differ by less than 5 % count as equal."""


@dataclass(frozen=True)
class Winner:
    """The choice. rows: with the winner marked. winners: the winner's name by each measure. notes: the reasons."""

    rows: tuple[Row, ...]
    winners: dict[str, str]
    notes: tuple[str, ...]


def fastest_float(rows: Sequence[Row]) -> Row | None:
    """Return the float file of least cost that passes, the baseline included; None if none has a cost."""
    floats = [row for row in rows if row.recipe == "float" and row.cost is not None]
    passing = [row for row in floats if row.baseline or row.outcome is Outcome.PASS]
    return min(passing, key=_cost, default=None)


def rivals(rows: Sequence[Row], evidence: Sequence[Evidence], policy: Policy) -> list[Row]:
    """Return the pressed files with a cost that pass at the confidence of a choice among all of them.

    evidence: of all rows but the first, the baseline.
    """
    count = len(competing := competing_rows(rows))
    judged = [(row, proof) for row, proof in zip(rows[1:], evidence, strict=True) if row in competing]
    return [row for row, proof in judged if overall(judge(policy, proof, competitors=count)) is Outcome.PASS]


def small_and_not_slower(row: Row, base: Row) -> bool:
    """Return whether a file is smaller than the fastest float file, and not shown to cost over 5 % more."""
    return row.bytes < base.bytes and _least_ratio(row, base) <= _TOLERANCE


def winner(passing: Sequence[Row], base: Row, prefer: Prefer) -> Row:
    """Return the file that wins by a measure; `base`, the fastest float file that passes, where no other one does.

    balanced: the smallest that is not shown to cost over 5 % more than `base`; of those within 5 % of its size the
    fastest. size: the smallest, of equals the fastest. speed: the fastest; of those within 5 % of its cost the
    smallest. passing: the pressed files that may ship (`rivals`).
    """
    if prefer == "size":
        return min([*passing, base], key=lambda row: (row.bytes, _cost(row)))
    if prefer == "speed":
        least = min(map(_cost, [*passing, base]))
        equal = [row for row in [*passing, base] if _cost(row) <= _TOLERANCE * least]
        return min(equal, key=lambda row: (row.bytes, _cost(row)))
    fit = [row for row in passing if small_and_not_slower(row, base)] or [base]
    smallest = min(row.bytes for row in fit)
    return min((row for row in fit if row.bytes <= _TOLERANCE * smallest), key=lambda row: (_cost(row), row.bytes))


def chosen(rows: Sequence[Row], evidence: Sequence[Evidence], policy: Policy, prefer: Prefer = "balanced") -> Winner:
    """Return the rows with the winner marked, the winner by each measure, and the reasons.

    evidence: of all rows but the first, the baseline. Nothing wins if nothing was pressed or no float file has a cost.
    """
    base = fastest_float(rows)
    if base is None or all(row.recipe == "float" for row in rows):
        return Winner(tuple(rows), {}, ())
    passing = rivals(rows, evidence, policy)
    best = {measure: winner(passing, base, measure) for measure in _MEASURES}
    competing = competing_rows(rows)
    alone = [row.name for row in competing if row.outcome is Outcome.PASS and row not in passing]
    notes = (
        _reason(best[prefer], base, prefer, len(competing)),
        *_undecided(alone, len(competing)),
        _other_winners(best, base, prefer),
    )
    marked = tuple(replace(row, winner=row is best[prefer]) for row in rows)
    return Winner(marked, {measure: row.name for measure, row in best.items()}, notes)


def competing_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the pressed files with a cost: the best one of them ships."""
    return [row for row in rows[1:] if row.recipe != "float" and row.cost is not None]


def _reason(best: Row, base: Row, prefer: Prefer, competitors: int) -> str:
    """Return why the winner won, or why no pressed file won."""
    counted = base.instructions is not None
    more = "over 5 % more instructions" if counted else "over 5 % longer"
    least = "takes the fewest instructions" if counted else "is the fastest"
    if best is base:
        missing = {
            "balanced": f"is smaller and does not take {more}",
            "size": "is smaller",
            "speed": "takes fewer instructions" if counted else "is faster",
        }[prefer]
        return (
            f"float is given back: ship {base.name}, which {least} of the float files that pass; "
            f"no pressed file is shown to pass that {missing}"
        )
    why = {
        "balanced": f"the smallest that passes and is not shown to take {more} than {base.name}; "
        f"of those within 5 % of that size it {least}",
        "size": "the smallest that passes",
        "speed": f"it {least} of those that pass, or is the smallest within 5 % of that",
    }[prefer]
    stricter = f"; since {competitors} files were compared, each had to pass at a higher confidence"
    return f"winner: {best.name} ({_size_and_cost(best, base)}): {why}{stricter * (competitors > 1)}"


def _undecided(alone: Sequence[str], competitors: int) -> list[str]:
    """Return a line on the files that pass alone, but not at the confidence of a choice among all; none without one."""
    if not alone:
        return []
    verb = "passes" if len(alone) == 1 else "pass"
    return [
        f"not chosen: {', '.join(alone)} {verb} alone, but not at the higher confidence that is required since "
        f"{competitors} files were compared; more test images may decide"
    ]


def _other_winners(best: dict[Prefer, Row], base: Row, prefer: Prefer) -> str:
    """Return which files would win by the other measures."""
    others = [
        f"--prefer {measure}: "
        + ("the winner too" if row is best[prefer] else f"{row.name} ({_size_and_cost(row, base)})")
        for measure, row in best.items()
        if measure != prefer
    ]
    return f"by another measure: {'; '.join(others)}"


def _size_and_cost(row: Row, base: Row) -> str:
    """Return a file's size, and its cost as a share of the fastest float file's."""
    if row is base:
        return size_text(row.bytes)
    unit = "instructions" if row.instructions is not None else "time"
    ratio = row.float_ratio if row.float_ratio is not None else _cost(row) / _cost(base)
    return f"{size_text(row.bytes)}, {ratio:.2f} of the {unit} of {base.name}"


def _least_ratio(row: Row, base: Row) -> float:
    """Return the lower bound of a file's cost as a share of the fastest float file's."""
    if row.float_ratio_interval:
        return row.float_ratio_interval[0]
    return _cost(row) / _cost(base)


def _cost(row: Row) -> float:
    return row.cost or 0.0


def measured_rows(
    artifacts: Sequence[Artifact],
    evaluations: Sequence[Evaluation],
    evidence: Sequence[Evidence],
    policy: Policy,
    *,
    times: Profile | None,
    counts: Sequence[Instructions | None],
) -> tuple[Row, ...]:
    """Return one row per artifact, the float baseline first; a row that is slower or larger than float has the reasons.

    evidence: of all but the first. times: None if the target is emulated; then there are counts. Raises RunFailed.
    """
    rows = _judged_rows(artifacts, evaluations, evidence, times, policy)
    rows = [replace(row, packed=shown_size(file.path)) for row, file in zip(rows, artifacts, strict=True)]
    rows = _against_own_float(_counted(rows, counts), _float_positions(artifacts), times)
    rows = _against_fastest_float(rows, times)
    # For an emulated target, this machine gave the answers.
    targets = [count.facts.target if count else row.target for row, count in zip(rows, counts, strict=True)]
    return tuple(
        _with_reasons(row, file, target, artifacts, rows)
        for row, file, target in zip(rows, artifacts, targets, strict=True)
    )


def _judged_rows(
    artifacts: Sequence[Artifact],
    evaluations: Sequence[Evaluation],
    evidence: Sequence[Evidence],
    times: Profile | None,
    policy: Policy,
) -> list[Row]:
    timed = times.rows if times else [None] * len(artifacts)
    base = timed[0].timings if timed[0] else None
    rows = [Row.of(evaluations[0], format=artifacts[0].format, recipe=artifacts[0].recipe, timings=base)]
    for artifact, evaluation, proof, latency in zip(artifacts[1:], evaluations[1:], evidence, timed[1:], strict=True):
        rows.append(
            Row.of(
                evaluation,
                format=artifact.format,
                recipe=artifact.recipe,
                comparison=comparison(proof.pairs),
                timings=latency.timings if latency else None,
                ratio=latency.ratio if latency else None,
                verdicts=judge(policy, proof),
                notes=artifact.notes,
                fidelity=artifact.fidelity,
            )
        )
    return rows


def _counted(rows: list[Row], counts: Sequence[Instructions | None]) -> list[Row]:
    """Return the rows with the instructions of their files, as far as they were counted."""
    base = counts[0].median if counts[0] else 0.0
    return [
        replace(row, instructions=count.median, instructions_ratio=count.median / base) if count else row
        for row, count in zip(rows, counts, strict=True)
    ]


def _float_positions(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """Return the index of the float file of each format."""
    return {file.format: index for index, file in reversed(list(enumerate(artifacts))) if file.recipe == "float"}


def _against_own_float(rows: list[Row], floats: dict[str, int], times: Profile | None) -> list[Row]:
    """Return the rows with their size and cost against the float file of their own format, in the same runtime."""
    compared = []
    for index, row in enumerate(rows):
        position = floats.get(row.format)
        if position is None:
            compared.append(row)
            continue
        base = rows[position]
        changes: dict[str, Any] = {}
        if row.instructions is not None and base.instructions:
            changes["own_ratio"] = row.instructions / base.instructions
        elif times:
            ratio, interval = _latency_ratio(times, index, position)
            changes = {"own_ratio": ratio, "own_ratio_interval": interval}
        compared.append(replace(row, own_shrink=base.bytes / row.bytes, **changes))
    return compared


def _against_fastest_float(rows: list[Row], times: Profile | None) -> list[Row]:
    """Return the rows with their cost against the fastest float file that passes."""
    base = fastest_float(rows)
    if base is None or base.cost is None:
        return rows
    if times is None:
        return [replace(row, float_ratio=row.cost / base.cost) if row.cost else row for row in rows]
    ratios = [_latency_ratio(times, index, rows.index(base)) for index in range(len(rows))]
    return [
        replace(row, float_ratio=ratio, float_ratio_interval=interval)
        for row, (ratio, interval) in zip(rows, ratios, strict=True)
    ]


def _latency_ratio(times: Profile, index: int, base: int) -> tuple[float | None, tuple[float, float] | None]:
    """Return the latency of one file against another's, with its interval if there were enough rounds for one."""
    ratio = LatencyRatio.of(times.rows[index].timings, times.rows[base].timings, seed=times.seed)
    if ratio is None:
        return None, None
    if index == base or ratio.low is None or ratio.high is None:
        return ratio.ratio, None
    return ratio.ratio, (ratio.low, ratio.high)


def _with_reasons(row: Row, artifact: Artifact, target: str, artifacts: Sequence[Artifact], rows: Sequence[Row]) -> Row:
    """Return the row with the reasons why the file is slower or larger than the float file in its runtime."""
    if row.recipe == "float" or not (row.slower or row.larger):
        return row
    position = _float_positions(artifacts).get(artifact.format, 0)
    base = rows[position]
    slower = row.slower_than_own or (row.slower and not base.slower)
    reasons = reasons_for(artifact, artifacts[position], get(target), slower=slower, larger=row.larger)
    if row.slower and not slower:
        more = "instructions" if row.instructions is not None else "time"
        reasons = (f"{base.name} takes more {more} than {rows[0].name} too: it is the runtime, not int8", *reasons)
    return replace(row, reasons=reasons)
