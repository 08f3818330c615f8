"""Compare the profiler's p50 with that of a bare loop, and measure the overhead per inference.

    python -m bench.profiler_truth ARTIFACT...

In every round each file is opened once and timed twice in random order: by `Session.time`, and by a plain loop around
the runtime's own call. Both use the same session, the same memory and the same minutes. The overhead is what
`time_calls` measures for a call that does nothing. All figures are medians.
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
from targets.host.runtime_session import time_calls
from targets.session import TimingPlan
from toolchain.core.quantities import time_text
from toolchain.profiling.latency import timeable

ROUNDS, RUNS, WARMUP = 20, 300, 20


@dataclass(frozen=True)
class Truth:
    """One file: the medians over rounds of both p50s, in nanoseconds, and of their ratio in each round."""

    name: str
    bare_ns: float
    profiled_ns: float
    ratio: float


def bare(session: Any) -> Callable[[], object]:
    """Return the runtime's own call on one image in memory, without any code of ours around it."""
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
    """Return the median time of a call in nanoseconds, measured by a plain loop."""
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
    random, pairs = np.random.default_rng(seed), []
    plan = TimingPlan(warmup=WARMUP, min_runs=RUNS, max_runs=RUNS, min_seconds=0, inner=1)
    for _ in range(rounds):
        with default_for(artifact.format).open(artifact) as session:
            methods = {
                "bare": lambda session=session: bare_p50(bare(session)),
                "profiled": lambda session=session: float(np.median(session.time(plan).samples_ns)),
            }
            p50 = {name: methods[name]() for name in random.permutation(list(methods))}
            pairs.append((p50["bare"], p50["profiled"]))
    both = np.array(pairs)
    return Truth(artifact.path.name, *np.median(both, axis=0), float(np.median(both[:, 1] / both[:, 0])))


def overhead_ns() -> float:
    """Return the overhead of the timing loop per inference: the median time of a call that does nothing."""
    samples, _, _ = time_calls(lambda: None, TimingPlan(min_runs=20_000, min_seconds=0, inner=1))
    return float(np.median(samples))


def main(paths: list[str]) -> None:
    print(f"overhead of the loop: {overhead_ns():.0f} ns per inference")
    for path in paths:
        measured = truth(timeable(Path(path)))
        p50 = f"bare {time_text(measured.bare_ns / 1e9)}, profiled {time_text(measured.profiled_ns / 1e9)}"
        print(f"{measured.name}: {p50}, profiled / bare {measured.ratio:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
