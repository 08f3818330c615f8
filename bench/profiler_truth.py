"""Whether the profiler tells the truth: its p50 against a bare loop, and what it adds to every inference.

    python -m bench.profiler_truth ARTIFACT...

In every round each file is opened once and timed twice, by `Session.time` and by a loop that is written out here with
nothing of ours in it, in an order that is drawn: both see the same session, the same memory and the same minutes. The
overhead is what `time_calls` measures of a call that does nothing. All medians.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from targets.artifact import Artifact
from targets.catalog import default_for
from targets.host.clock import time_calls
from targets.session import TimingPlan
from toolchain.core.quantities import time_text
from toolchain.profiling.latency import timeable

ROUNDS, RUNS, WARMUP = 20, 300, 20


@dataclass(frozen=True)
class Truth:
    """Of one file: medians over rounds of each p50, in nanoseconds, and of their ratio round by round."""

    name: str
    bare_ns: float
    profiled_ns: float
    ratio: float


def bare(session: Any) -> Callable[[], object]:
    """Return the runtime's own call on one image in memory, without a line of the product around it."""
    if hasattr(session, "_interpreter"):
        session.prepared(1)
        return session._interpreter.invoke
    import onnxruntime

    runtime, binding = session._session, session._session.io_binding()
    image = np.zeros((1, *[max(axis, 1) for axis in session.source.spec.shape[1:]]), session.source.spec.dtype)
    held = onnxruntime.OrtValue.ortvalue_from_numpy(image)
    binding.bind_ortvalue_input(session.source.spec.name, held)
    answer = onnxruntime.OrtValue.ortvalue_from_numpy(runtime.run(None, {session.source.spec.name: image})[0])
    binding.bind_ortvalue_output(session.sink.spec.name, answer)
    return lambda _held=(held, answer), run=runtime.run_with_iobinding: run(binding)


def bare_p50(call: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median nanoseconds of a call in the plainest loop there is."""
    for _ in range(WARMUP):
        call()
    samples = []
    for _ in range(runs):
        start = perf_counter_ns()
        call()
        samples.append(perf_counter_ns() - start)
    return float(np.median(samples))


def truth(artifact: Artifact, rounds: int = ROUNDS, seed: int = 0) -> Truth:
    """Time a file both ways in `rounds` rounds."""
    random, found = np.random.default_rng(seed), []
    plan = TimingPlan(warmup=WARMUP, min_runs=RUNS, max_runs=RUNS, min_seconds=0, inner=1)
    for _ in range(rounds):
        with default_for(artifact.format).open(artifact) as session:
            ways = {
                "bare": lambda session=session: bare_p50(bare(session)),
                "profiled": lambda session=session: float(np.median(session.time(plan).samples_ns)),
            }
            took = {name: ways[name]() for name in random.permutation(list(ways))}
            found.append((took["bare"], took["profiled"]))
    pairs = np.array(found)
    return Truth(artifact.path.name, *np.median(pairs, axis=0), float(np.median(pairs[:, 1] / pairs[:, 0])))


def overhead_ns() -> float:
    """Return what the loop adds to one inference: the median of timing a call that does nothing."""
    samples, _, _ = time_calls(lambda: None, TimingPlan(min_runs=20_000, min_seconds=0, inner=1))
    return float(np.median(samples))


def main(words: list[str]) -> None:
    print(f"overhead of the loop: {overhead_ns():.0f} ns an inference")
    for word in words:
        one = truth(timeable(Path(word)))
        told = f"bare {time_text(one.bare_ns / 1e9)}, profiled {time_text(one.profiled_ns / 1e9)}"
        print(f"{one.name}: {told}, profiled / bare {one.ratio:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
