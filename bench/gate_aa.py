"""How often the latency limits give a false alarm: `python -m bench.gate_aa`, about ten minutes on two cores.

An A/A test: it times the same file against itself a hundred times and judges every run at limits of 1.0x and 1.05x on
P50 and P95. Each FAIL is a false alarm. It does so in two ways: as the product times, which opens the file again in
every round, and with two sessions that stay open for the whole run, to show why the product does not do that. Then it
times a file that is really slower, which must fail. Everything goes through the public API, however busy the machine
is. The ratios and counts are stored in `results/gate_aa.json`. Exit 1 if more than 1 % of the runs raised an alarm.

`--busy 1` keeps one core busy with another process and writes `results/gate_aa_busy.json`. On a busy machine a limit
may pass or stay undecided, but a FAIL, or a PASS of the slower file, is false; any of them is exit 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from targets.artifact import Artifact
from targets.catalog import default_for
from targets.host.machine import machine_state
from targets.session import TimingPlan, Timings
from toolchain.checkpoint import CheckpointRequest
from toolchain.cli.console import progress
from toolchain.commands.export import export_checkpoint
from toolchain.commands.quantize import quantize_file
from toolchain.core.context import RunContext
from toolchain.evaluation.timings import LatencyRatio
from toolchain.formats.catalog import pressed
from toolchain.gate.limits.speed import TimeRatioLimit, judge_time_ratio
from toolchain.profiling.latency import ROUNDS, time_interleaved
from toolchain.recipe import shipped
from toolchain.report.report import Row
from toolchain.stats.decision import Outcome

RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = 100
HELD_REPEATS = 50
SLOW_REPEATS = 10
BUSY_REPEATS = 40
FORMATS = pressed()
PERCENTILES = {"p50_ratio": 50.0, "p95_ratio": 95.0}
LIMITS = (1.0, 1.05)
# A tenth of what the gate measures, so that a hundred runs take minutes.
PLAN = TimingPlan(min_runs=2000, min_seconds=0.3, inner=1)


@dataclass(frozen=True)
class Trial:
    """Many runs of one pair of files.

    way: how the sessions were opened. seconds: mean time of a run. alarms: runs in which any limit failed. slower: runs
    that the report would call slower. verdicts: for each limit, how often each outcome came. ratios: by percentile, the
    ratio and its interval in every run.
    """

    baseline: str
    candidate: str
    way: str
    repeats: int
    seconds: float
    alarms: int
    slower: int
    verdicts: dict[str, dict[str, int]]
    ratios: dict[str, list[list[float]]]

    def lines(self) -> Iterator[str]:
        """Yield the trial as lines of text."""
        pair = f"{self.candidate} against {'itself' if self.baseline == self.candidate else self.baseline}"
        yield f"{pair}, {self.way}, {self.repeats} runs of {self.seconds:.1f} s: {self.alarms} with an alarm"
        for limit, outcomes in self.verdicts.items():
            yield f"  {limit:16} " + ", ".join(f"{count:3} {outcome}" for outcome, count in outcomes.items())
        yield f"  {'called slower':16} {self.slower:3}"


def trial(pair: tuple[Artifact, Artifact], repeats: int, *, held: bool, listen: Any) -> Trial:
    """Time and judge one pair of files `repeats` times; an alarm is a run in which any limit FAILs."""
    counts = {f"{name} {limit:g}x": Counter[str]() for name in PERCENTILES for limit in LIMITS}
    ratios: dict[str, list[list[float]]] = {name: [] for name in PERCENTILES}
    alarms = slower = 0
    began = time.monotonic()
    for seed in range(repeats):
        base, candidate = timed(pair, seed=seed, held=held)
        outcomes = judged(candidate, base)
        for limit, outcome in outcomes.items():
            counts[limit][str(outcome)] += 1
        alarms += Outcome.FAIL in outcomes.values()
        for name, q in PERCENTILES.items():
            ratio = LatencyRatio.of(candidate, base, q=q)
            if ratio is None or ratio.low is None or ratio.high is None:
                raise SystemExit(f"{name}: too few samples on this machine; raise PLAN.min_runs")
            ratios[name].append([round(value, 5) for value in (ratio.ratio, ratio.low, ratio.high)])
        slower += called_slower(*ratios["p50_ratio"][-1][1:])
        listen(f"{pair[1].path.name}, {'held open' if held else 'opened anew'}", seed + 1, repeats)
    return Trial(
        *(artifact.path.name for artifact in pair),
        way="held open" if held else "opened anew",
        repeats=repeats,
        seconds=round((time.monotonic() - began) / repeats, 2),
        alarms=alarms,
        slower=slower,
        verdicts={limit: dict(sorted(outcomes.items())) for limit, outcomes in counts.items()},
        ratios=ratios,
    )


def timed(pair: tuple[Artifact, Artifact], *, seed: int, held: bool) -> list[Timings]:
    """Time both files in turns, in sessions that are opened in every round, or once for the whole run (held)."""
    openings = [partial(default_for(artifact.format).open, artifact, threads=1) for artifact in pair]
    with ExitStack() as stack:
        if held:
            openings = [partial(nullcontext, stack.enter_context(opening())) for opening in openings]
        return time_interleaved(openings, PLAN, seed=seed)


def judged(candidate: Timings, base: Timings) -> dict[str, Outcome]:
    """Judge every limit at the default confidence of a policy."""
    return {
        f"{name} {limit:g}x": judge_time_ratio(TimeRatioLimit(max=limit), name, q, candidate, base).outcome
        for name, q in PERCENTILES.items()
        for limit in LIMITS
    }


def called_slower(low: float, high: float) -> bool:
    """Say whether the report would call a file with this interval slower than float."""
    row = Row("a", "onnx", "a", "", 1, "ort-cpu", 1, 1.0, p50_ratio_interval=(low, high))
    return row.slower


def files(folder: Path) -> Iterator[tuple[Artifact, Artifact]]:
    """Yield the shipped model in each format: float, and static int8 calibrated on the built-in digits."""
    step = shipped()["static-int8"].quantize
    for kind in FORMATS:
        source = export_checkpoint(
            "cnn-small", CheckpointRequest(), folder / f"cnn-small.float.{kind}", context=RunContext()
        )
        small = quantize_file(
            source.path, step, folder / f"cnn-small.static-int8.{kind}", data="builtin:digits", context=RunContext()
        )
        yield source, small


def measure() -> list[Trial]:
    """Run every trial."""
    with tempfile.TemporaryDirectory() as folder, progress() as listen:
        pairs = list(files(Path(folder)))
        same = [trial((small, small), REPEATS, held=False, listen=listen) for _, small in pairs]
        slow = [trial((small, big), SLOW_REPEATS, held=False, listen=listen) for big, small in pairs]
        held = [trial((small, small), HELD_REPEATS, held=True, listen=listen) for _, small in pairs]
        return [*same, *held, *slow]


def measure_busy(others: int) -> list[Trial]:
    """Run the trials that open the files in every round, while `others` processes keep a core busy each."""
    with tempfile.TemporaryDirectory() as folder, progress() as listen:
        pairs = list(files(Path(folder)))
        with kept_busy(others):
            same = [trial((small, small), BUSY_REPEATS, held=False, listen=listen) for _, small in pairs]
            slow = [trial((small, big), BUSY_REPEATS, held=False, listen=listen) for big, small in pairs]
        return [*same, *slow]


@contextmanager
def kept_busy(others: int) -> Iterator[None]:
    """Keep `others` processes in an endless loop until the end of the block."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def false_verdicts(trial: Trial) -> int:
    """Return how many verdicts are false on a busy machine: every FAIL, and every PASS of the slower file."""
    wrong = ("FAIL",) if trial.baseline == trial.candidate else ("FAIL", "PASS")
    return sum(counts.get(outcome, 0) for counts in trial.verdicts.values() for outcome in wrong)


def main() -> int:
    """Measure, store and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate_aa")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="number of cores kept busy by other processes")
    others = parser.parse_args().busy
    before = machine_state()
    trials = measure_busy(others) if others else measure()
    stored = {
        "schema": "glyphpress/bench/gate_aa/1",
        "plan": asdict(PLAN),
        "rounds": ROUNDS,
        "confidence": TimeRatioLimit.model_fields["confidence"].default,
        "machine": before | {"load_average_end": machine_state().get("load_average")},
        "busy": others,
        "trials": [asdict(measured) for measured in trials],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = RESULTS / ("gate_aa_busy.json" if others else "gate_aa.json")
    result.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    for measured in trials:
        print(*measured.lines(), sep="\n")
    if others:
        return int(any(map(false_verdicts, trials)))
    same = [run for run in trials if run.baseline == run.candidate and run.way == "opened anew"]
    return int(any(run.alarms > run.repeats // 100 for run in same))


if __name__ == "__main__":
    sys.exit(main())
