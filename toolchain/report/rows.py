"""The rows of a report, from what was evaluated, timed, counted and judged of every file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from targets.artifact import Artifact
from targets.catalog import get
from targets.session import Instructions
from toolchain.evaluation.compare import comparison
from toolchain.evaluation.evaluate import Evaluation
from toolchain.evaluation.ratio import LatencyRatio
from toolchain.formats.inspection import shown_size
from toolchain.gate.evidence import Evidence
from toolchain.gate.gate import judge
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import Profile
from toolchain.profiling.reasons import reasons_for
from toolchain.report.report import Row
from toolchain.report.winner import fastest_float


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
    for artifact, evaluation, own, latency in zip(artifacts[1:], evaluations[1:], evidence, timed[1:], strict=True):
        rows.append(
            Row.of(
                evaluation,
                format=artifact.format,
                recipe=artifact.recipe,
                comparison=comparison(own.pairs),
                timings=latency.timings if latency else None,
                ratio=latency.ratio if latency else None,
                verdicts=judge(policy, own),
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
