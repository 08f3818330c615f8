"""Several presses of one model, side by side: size, drop, cost and verdict of each file, and what may be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from toolchain.core.errors import UsageProblem
from toolchain.core.quantities import points_text, size_text, time_text
from toolchain.report.report import Report, Row
from toolchain.report.tables import DASH, Columns
from toolchain.stats.decision import Outcome

Reason = Literal["model", "images", "machine", "target"]
"""What differs from the first run, so that figures may not be compared with its own."""
_SPOILS: dict[str, tuple[Reason, ...]] = {
    "size": ("model",),
    "drop": ("model", "images"),
    "cost": ("model", "machine", "target"),
    "instructions": ("model", "target"),
}
"""Figure -> the differences that forbid comparing it. Instructions are those of an emulated processor, so that the
machine that emulates it does not matter."""
_RUNTIMES = ("onnxruntime", "ai-edge-litert", "litert-torch", "torch")


@dataclass(frozen=True)
class Run:
    """A press. name: its folder as it was given."""

    name: str
    report: Report


@dataclass(frozen=True)
class RunLine:
    """One file of one run. interval: two-sided 95 % one of its drop. differs: what differs from the first run."""

    file: str
    run: str
    row: Row
    interval: tuple[float, float] | None
    differs: tuple[Reason, ...]

    def spoiled(self, figure: str) -> tuple[Reason, ...]:
        """Return why a figure may not be compared with the first run's; empty where it may."""
        return tuple(reason for reason in self.differs if reason in _SPOILS[figure])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types: sizes in bytes, times in nanoseconds, shares as fractions."""
        names = ("name", "sha256", "bytes", "drop", "bound", "p50_ns", "p50_ratio", "p50_ratio_interval")
        figures = {name: getattr(self.row, name) for name in (*names, "instructions", "instructions_ratio", "winner")}
        outcome = str(self.row.outcome) if self.row.outcome else None
        spoiled = {figure: list(self.spoiled(figure)) for figure in _SPOILS}
        return {"file": self.file, "run": self.run, **figures, "drop_interval": self.interval, "outcome": outcome} | {
            "not_comparable": spoiled
        }


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the reports of several presses; raises UsageProblem for one that is named twice, and as `Report.load`."""
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        raise UsageProblem("a run was given twice; give each folder of a press once")
    return [Run(str(path), Report.load(path)) for path in paths]


def run_lines(runs: Sequence[Run]) -> list[RunLine]:
    """Return a line for each file of each run, ordered by file and then as the runs were given.

    A file is the same in two runs if its recipe and format are: its name begins with that of the checkpoint.
    """
    first = runs[0].report
    lines = []
    keys = dict.fromkeys((row.recipe, row.format) for run in runs for row in run.report.rows)
    for recipe, format_ in keys:
        base = next((row for row in first.rows if (row.recipe, row.format) == (recipe, format_)), None)
        for run in runs:
            differs = tuple(reason for reason, _ in _differences(run.report, first))
            intervals = {compared.candidate: compared.interval for compared in run.report.comparisons}
            for row in run.report.rows:
                if (row.recipe, row.format) == (recipe, format_):
                    elsewhere: tuple[Reason, ...] = ("target",) if base and base.target != row.target else ()
                    name = f"{recipe}.{format_}"
                    lines.append(RunLine(name, run.name, row, intervals.get(row.name), (*differs, *elsewhere)))
    return lines


def run_remarks(runs: Sequence[Run]) -> list[str]:
    """Return what may not be compared and why, what else differs, and which runs were timed on a busy machine."""
    base, *others = runs
    lines = []
    for run in others:
        lines += [f"{run.name} against {base.name}: {text}" for _, text in _differences(run.report, base.report)]
        lines += [f"{run.name} against {base.name}: {text}" for text in _notes(run.report, base.report)]
    lines += [f"{run.name}: {note}" for run in runs for note in run.report.notes if note.startswith("NOT QUIET")]
    return lines


def _differences(report: Report, first: Report) -> Iterator[tuple[Reason, str]]:
    """Yield what forbids comparing figures of two runs, and which figures."""
    source, base = report.checkpoint, first.checkpoint
    if (source.model, source.parameters) != (base.model, base.parameters):
        yield "model", f"another model ({_model(report)}, not {_model(first)}), so nothing may be compared"
    elif report.dataset.classes != first.dataset.classes:
        yield "model", "other classes, so it is another model and nothing may be compared"
    if report.dataset.sha256 != first.dataset.sha256:
        yield "images", f"other test images ({_images(report)}, not {_images(first)}), so drops may not be compared"
    if _machine(report) != _machine(first):
        yield (
            "machine",
            f"another machine ({_machine_text(report)}, not {_machine_text(first)}), so times may not be compared, nor "
            "ratios of times",
        )


def _notes(report: Report, first: Report) -> Iterator[str]:
    """Yield what differs and forbids nothing."""
    source, base = report.checkpoint, first.checkpoint
    if source.sha256 != base.sha256 and source.model == base.model:
        yield (
            f"other weights (sha256 {source.sha256[:8]}, not {base.sha256[:8]}): each drop is from its own float file"
        )
    for name in _RUNTIMES:
        if report.tools.get(name) != first.tools.get(name):
            versions = (report.tools.get(name, "none"), first.tools.get(name, "none"))
            yield f"{name} {versions[0]}, not {versions[1]}"
    if report.policy != first.policy:
        yield "another policy, so verdicts may differ without a change of the files"


def _model(report: Report) -> str:
    parameters = report.checkpoint.parameters
    return report.checkpoint.model + (f" with {parameters:,} parameters" if parameters is not None else "")


def _images(report: Report) -> str:
    return f"{report.dataset.images:,} of {report.dataset.origin}, sha256 {report.dataset.sha256[:8]}"


def _machine(report: Report) -> tuple[object, ...]:
    return tuple(str(report.machine.get(key)) for key in ("board", "cpu", "architecture", "cores", "isa", "governor"))


def _machine_text(report: Report) -> str:
    state = report.machine
    name = state.get("board") or state.get("cpu") or state.get("architecture") or "an unknown machine"
    return f"{name}, {state.get('cores', '?')} cores"


def drop_text(line: RunLine) -> str:
    """Return `0.17 [-0.94, 0.47] pp`, or a dash for the baseline."""
    if line.row.drop is None:
        return DASH
    interval = "" if line.interval is None else f" [{', '.join(points_text(bound) for bound in line.interval)}]"
    return f"{points_text(line.row.drop)}{interval} pp"


def time_cell(row: Row) -> str:
    """Return the median time of an inference, or a dash."""
    return DASH if row.p50_ns is None else time_text(row.p50_ns / 1e9)


def cost_text(line: RunLine) -> str:
    """Return the time as a share of float's with its interval, or the share of instructions; a dash without either."""
    row = line.row
    if row.instructions_ratio is not None:
        return f"{row.instructions_ratio:.3f}"
    if row.p50_ratio is None:
        return DASH
    interval = "" if row.p50_ratio_interval is None else " [{:.2f}, {:.2f}]".format(*row.p50_ratio_interval)
    return f"{row.p50_ratio:.2f}{interval}"


def runs_table(runs: Sequence[Run]) -> Columns:
    """Return the lines as a table, and the remarks; `!` marks what may not be compared with the first run's figure."""
    lines = run_lines(runs)

    def marked(figure: str, text: str, line: RunLine) -> str:
        return f"{text} !" if text != DASH and line.spoiled(figure) else text

    cells = {
        "file": [line.file for line in lines],
        "run": [line.run for line in lines],
        "size": [marked("size", size_text(line.row.bytes), line) for line in lines],
        "drop": [marked("drop", drop_text(line), line) for line in lines],
        "p50": [marked("cost", time_cell(line.row), line) for line in lines],
        "of float": [marked(_cost(line), cost_text(line), line) for line in lines],
        "instructions": [
            DASH if line.row.instructions is None else marked("instructions", f"{line.row.instructions:,.0f}", line)
            for line in lines
        ],
        "verdict": [verdict_text(line.row) for line in lines],
    }
    spoiled = any(line.spoiled(figure) for line in lines for figure in _SPOILS)
    meaning = [f"!: may not be compared with {runs[0].name}"] if spoiled else []
    explained = "of float: time or instructions as a share of the float baseline's in the same run, 95 % interval"
    return Columns(cells, [explained, *meaning, *run_remarks(runs)], ("file", "run", "verdict"), ("p50",))


def _cost(line: RunLine) -> str:
    return "instructions" if line.row.instructions_ratio is not None else "cost"


def cost_spoiled(line: RunLine) -> tuple[Reason, ...]:
    """Return why the cost of a file may not be compared with the first run's."""
    return line.spoiled(_cost(line))


def verdict_text(row: Row) -> str:
    """Return the outcome of a file, and whether it won."""
    outcome = "baseline" if row.baseline else str(row.outcome or "not judged")
    return outcome + "  winner" * row.winner


def runs_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the same as JSON types."""
    described = [
        {
            "run": run.name,
            "created": run.report.created,
            "checkpoint": asdict(run.report.checkpoint),
            "dataset_sha256": run.report.dataset.sha256,
            "winner": next((row.name for row in run.report.rows if row.winner), None),
            "passed": sum(row.outcome is Outcome.PASS for row in run.report.rows),
        }
        for run in runs
    ]
    return {"runs": described, "lines": [line.to_dict() for line in run_lines(runs)], "notes": run_remarks(runs)}
