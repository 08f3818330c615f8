"""Measurements as files for other programs: Markdown for a page, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io

from toolchain.core.visible import visible
from toolchain.evaluation.ratio import LatencyRatio
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.report import gfm
from toolchain.report.timings import measurements_cells, remarks


def measurements_markdown(measurements: Measurements) -> str:
    """Return the table, with every column, and its remarks."""
    headings, rows = measurements_cells(measurements)
    right = [k for k, heading in enumerate(headings) if heading not in ("artifact", "target", "answers")]
    table = gfm.table(headings, [[gfm.text(cell) for cell in row] for row in rows], right=right)
    return "\n".join([table, "", *(f"- {gfm.text(line)}" for line in remarks(measurements))]) + "\n"


def measurements_csv(measurements: Measurements) -> str:
    """Return a line a file and target, in bytes and nanoseconds; what is not known is empty."""
    lines = [_figures(file) for file in measurements.files]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _figures(file: MeasuredFile) -> dict[str, object]:
    timed, facts = file.timed, file.facts
    known: dict[str, object] = {
        "artifact": _words(file.artifact.path.name),
        "sha256": file.artifact.sha256,
        "target": _words(file.target),
        "runtime": f"{facts.runtime} {facts.version}" if facts else None,
        "device": facts.device if facts else None,
        "threads": facts.threads if facts else None,
        "batch": timed.batch if timed else None,
        "bytes": file.artifact.size,
        "packed_bytes": file.packed,
        "memory_bytes": file.peak_bytes,
        "load_ns": timed.load_ns if timed else None,
        "first_run_ns": timed.first_run_ns if timed else None,
        "samples": len(timed.samples_ns) if timed else None,
    }
    known |= {f"{name}_ns": ns if timed else None for name, ns in file.percentiles().items()}
    known |= {"instructions": file.instructions.median if file.instructions else None}
    known |= _ratio("of_first", file.ratio if timed else None)
    known |= _ratio("p95_of_first", file.ratio_p95 if timed else None)
    return known | {"instructions_of_first": file.instructions_ratio, "refused": _words(file.refused)}


def _words(words: str) -> str:
    """Return words that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{visible(words)}" if words.startswith(tuple("=+-@\t\r")) else visible(words)


def _ratio(name: str, ratio: LatencyRatio | None) -> dict[str, object]:
    parts = (ratio.ratio, ratio.low, ratio.high) if ratio else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
