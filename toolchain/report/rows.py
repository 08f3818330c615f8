"""How the rows of a report come about: from what was read, timed, counted and judged of every file."""

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
from toolchain.formats.packed import shown_size
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
    """Return a row an artifact, the float baseline first; what is slower or larger than float says why.

    evidence: of all but the first. times: None where the target is emulated; then there are counts. Raises RunFailed.
    """
    rows = _rows(artifacts, evaluations, evidence, times, policy)
    rows = [replace(row, packed=shown_size(one.path)) for row, one in zip(rows, artifacts, strict=True)]
    rows = _against_own(_counted(rows, counts), _floats(artifacts), times)
    rows = _against_fastest(rows, times)
    # An emulated place counts, but this machine reads for it.
    places = [own.facts.target if own else row.target for row, own in zip(rows, counts, strict=True)]
    return tuple(
        _explained(row, one, place, artifacts, rows) for row, one, place in zip(rows, artifacts, places, strict=True)
    )


def _rows(
    artifacts: Sequence[Artifact],
    evaluations: Sequence[Evaluation],
    evidence: Sequence[Evidence],
    times: Profile | None,
    policy: Policy,
) -> list[Row]:
    timed = times.rows if times else [None] * len(artifacts)
    base = timed[0].timings if timed[0] else None
    rows = [Row.of(evaluations[0], format=artifacts[0].format, recipe=artifacts[0].recipe, timings=base)]
    for artifact, seen, proof, taken in zip(artifacts[1:], evaluations[1:], evidence, timed[1:], strict=True):
        rows.append(
            Row.of(
                seen,
                format=artifact.format,
                recipe=artifact.recipe,
                comparison=comparison(proof.pairs),
                timings=taken.timings if taken else None,
                ratio=taken.ratio if taken else None,
                verdicts=judge(policy, proof),
                notes=artifact.notes,
                fidelity=artifact.fidelity,
            )
        )
    return rows


def _counted(rows: list[Row], counts: Sequence[Instructions | None]) -> list[Row]:
    """Return the rows with the instructions of their files, which a place that is emulated tells."""
    base = counts[0].median if counts[0] else 0.0
    return [
        replace(row, instructions=own.median, instructions_ratio=own.median / base) if own else row
        for row, own in zip(rows, counts, strict=True)
    ]


def _floats(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """Return where the float file of each format stands."""
    return {one.format: place for place, one in reversed(list(enumerate(artifacts))) if one.recipe == "float"}


def _against_own(rows: list[Row], floats: dict[str, int], times: Profile | None) -> list[Row]:
    """Return the rows with what they are against the float file of their own format, in the same runtime."""
    found = []
    for place, row in enumerate(rows):
        own = floats.get(row.format)
        if own is None:
            found.append(row)
            continue
        base = rows[own]
        changes: dict[str, Any] = {}
        if row.instructions is not None and base.instructions:
            changes["own_ratio"] = row.instructions / base.instructions
        elif times:
            ratio, known = _ratio(times, place, own)
            changes = {"own_ratio": ratio, "own_ratio_interval": known}
        found.append(replace(row, own_shrink=base.bytes / row.bytes, **changes))
    return found


def _against_fastest(rows: list[Row], times: Profile | None) -> list[Row]:
    """Return the rows with what they cost of the fastest float file that passes."""
    base = fastest_float(rows)
    if base is None or base.cost is None:
        return rows
    if times is None:
        return [replace(row, float_ratio=row.cost / base.cost) if row.cost else row for row in rows]
    ratios = [_ratio(times, place, rows.index(base)) for place in range(len(rows))]
    return [
        replace(row, float_ratio=ratio, float_ratio_interval=known)
        for row, (ratio, known) in zip(rows, ratios, strict=True)
    ]


def _ratio(times: Profile, place: int, base: int) -> tuple[float | None, tuple[float, float] | None]:
    """Return the latency of one file against another's, with its interval where the rounds carry one."""
    found = LatencyRatio.of(times.rows[place].timings, times.rows[base].timings, seed=times.seed)
    if found is None:
        return None, None
    if place == base or found.low is None or found.high is None:
        return found.ratio, None
    return found.ratio, (found.low, found.high)


def _explained(row: Row, artifact: Artifact, place: str, artifacts: Sequence[Artifact], rows: Sequence[Row]) -> Row:
    if row.recipe == "float" or not (row.slower or row.larger):
        return row
    own = _floats(artifacts).get(artifact.format, 0)
    behind = row.slower_than_own or (row.slower and not rows[own].slower)
    reasons = reasons_for(artifact, artifacts[own], get(place), slower=behind, larger=row.larger)
    if row.slower and not behind:
        more = "instructions" if row.instructions is not None else "time"
        reasons = (f"{rows[own].name} takes more {more} than {rows[0].name} too: it is the runtime, not int8", *reasons)
    return replace(row, reasons=reasons)
