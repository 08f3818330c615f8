"""A survey as files for other programs: Markdown for a page, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io

from toolchain.evaluation.ratio import LatencyRatio
from toolchain.profiling.cells import Cell, Survey
from toolchain.report import gfm
from toolchain.report.timings import remarks, survey_cells
from toolchain.visible import visible


def survey_markdown(survey: Survey) -> str:
    """Return the table, with every column, and its remarks."""
    headings, rows = survey_cells(survey)
    right = [k for k, heading in enumerate(headings) if heading not in ("artifact", "target", "answers")]
    table = gfm.table(headings, [[gfm.text(cell) for cell in row] for row in rows], right=right)
    return "\n".join([table, "", *(f"- {gfm.text(line)}" for line in remarks(survey))]) + "\n"


def survey_csv(survey: Survey) -> str:
    """Return a line a file and target, in bytes and nanoseconds; what is not known is empty."""
    lines = [_figures(cell) for cell in survey.cells]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _figures(cell: Cell) -> dict[str, object]:
    timed, facts = cell.timed, cell.facts
    known: dict[str, object] = {
        "artifact": _words(cell.artifact.path.name),
        "sha256": cell.artifact.sha256,
        "target": _words(cell.target),
        "runtime": f"{facts.runtime} {facts.version}" if facts else None,
        "device": facts.device if facts else None,
        "threads": facts.threads if facts else None,
        "batch": timed.batch if timed else None,
        "bytes": cell.artifact.size,
        "packed_bytes": cell.packed,
        "memory_bytes": cell.peak_bytes,
        "load_ns": timed.load_ns if timed else None,
        "first_run_ns": timed.first_run_ns if timed else None,
        "samples": len(timed.samples_ns) if timed else None,
    }
    known |= {f"{name}_ns": ns if timed else None for name, ns in cell.percentiles().items()}
    known |= {"instructions": cell.instructions.median if cell.instructions else None}
    known |= _ratio("of_first", cell.ratio if timed else None)
    known |= _ratio("p95_of_first", cell.ratio_p95 if timed else None)
    return known | {"instructions_of_first": cell.instructions_ratio, "refused": _words(cell.refused)}


def _words(words: str) -> str:
    """Return words that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{visible(words)}" if words.startswith(tuple("=+-@\t\r")) else visible(words)


def _ratio(name: str, ratio: LatencyRatio | None) -> dict[str, object]:
    parts = (ratio.ratio, ratio.low, ratio.high) if ratio else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
