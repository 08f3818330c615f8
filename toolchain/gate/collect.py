"""Gather: the evidence that a policy needs, from artifacts, saved evaluations or a stored baseline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from calibration.dataset import Dataset
from targets.catalog import get
from targets.session import TimingPlan, Timings
from targets.target import Target
from toolchain.core.context import Progress, RunContext, silent
from toolchain.core.errors import UsageProblem
from toolchain.evaluation.compare import Comparison, Pairs, compare, flipped
from toolchain.evaluation.untracked import Training
from toolchain.gate.baseline import check, prepared
from toolchain.gate.candidate import JudgedFile, Sources, read_judged_file, saved
from toolchain.gate.evidence import Evidence
from toolchain.gate.limits import definition
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import profile

Times = tuple[Timings | None, Timings | None]

# Single inferences, so that the tail stays visible, and enough of them for a P95 in every second round at the least.
GATE_PLAN = TimingPlan(min_runs=2000, min_seconds=3.0, inner=1)


def compare_files(
    baseline: Path,
    candidate: Path,
    dataset: Dataset | None,
    *,
    train: Training | None = None,
    target: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Pair two artifacts or saved evaluations image by image. train: as in `open_artifact`."""
    read = partial(read_judged_file, dataset=dataset, train=train, target=target, progress=progress)
    baseline_file = read(baseline)
    candidate_file = read(candidate, likely=baseline_file.evaluation.preprocess)
    refuse_idle(target, (baseline_file, candidate_file))
    return compare(baseline_file.evaluation, candidate_file.evaluation)


def gather(
    policy: Policy,
    baseline: JudgedFile,
    candidate: JudgedFile,
    test: Dataset | None,
    train: Dataset | None = None,
    *,
    times: Times | None = None,
    context: RunContext | None = None,
) -> Evidence:
    """Return all that `policy` needs to judge `candidate` against `baseline`.

    test, train: the images behind the evaluations, None where they are not at hand. times: the candidate's and the
    baseline's timings where they were taken already. context: accuracy is measured on all cores, latency and memory on
    its `threads`, by default one. Raises UsageProblem, saying which limit needs it, when a file or
    images are missing.
    """
    check(policy, baseline, candidate)
    pairs = Pairs.of(baseline.evaluation, candidate.evaluation)
    context = context or RunContext(threads=1)
    timings, baseline_timings = times or timed(policy, baseline, [candidate], context)[0]
    baseline, candidate = (prepared(policy, file, test, context.progress) for file in (baseline, candidate))
    sources = Sources(candidate, baseline, test, train, context)
    parts: dict[str, Any] = {}
    for name, limit in policy.limits():
        known = definition(name)
        if known.collect:
            parts[known.evidence[0]] = known.collect(limit, sources)
    return Evidence(
        pairs=pairs,
        timings=timings,
        baseline_timings=baseline_timings,
        flipped=flipped(pairs, test) if test is not None else None,
        baseline_digest=baseline.stored.digest if baseline.stored else None,
        **parts,
    )


def timed(policy: Policy, baseline: JudgedFile, candidates: Sequence[JudgedFile], context: RunContext) -> list[Times]:
    """Return each candidate's timings and the baseline's, all taken in turns, as far as a limit asks for them."""
    if not policy.needs("timings"):
        return [(None, None)] * len(candidates)
    judged = [*candidates, baseline] if policy.needs("baseline_timings") else candidates
    artifacts = [file.file("be timed") for file in judged]
    target = get(candidates[0].target) if candidates[0].target else None
    rows = profile(artifacts, target=target, plan=GATE_PLAN, context=context).rows
    last = rows[-1].timings if policy.needs("baseline_timings") else None
    return [(row.timings, last) for row in rows[: len(candidates)]]


def refuse_idle(target: str | None, judged: Sequence[JudgedFile]) -> None:
    """Raise UsageProblem for a target that would run nothing, since every file is only saved answers."""
    if target and all(file.artifact is None for file in judged):
        raise UsageProblem(f"--target {target} would run nothing: these are saved evaluations; leave it out")


def check_needs(policy: Policy, baseline: Path, candidates: Sequence[Path], *, images: bool, train: bool) -> None:
    """Raise UsageProblem, naming the limit or the file, where the policy needs what is not there.

    images, train: whether there are test images, and those that the candidates were trained and calibrated on.
    """
    for file in (baseline, *candidates):
        if not saved(file) and not images:
            raise UsageProblem(f"{file.name} is an artifact, so it needs images to read: add --data")
    limits = [definition(name) for name, _ in policy.limits()]
    for limit in limits:
        _check_files(limit.name, limit.baseline_must, [baseline])
        _check_files(limit.name, limit.file_must, candidates)
        if limit.images and not images:
            raise UsageProblem(f"the policy's [{limit.name}] needs the images: add --data, or drop the limit")
    for limit in limits:
        if limit.training_images and not train:
            raise UsageProblem(
                f"the policy's [{limit.name}] needs the training images: add --data or --train-data, or drop it"
            )


def check_classes(policy: Policy, classes: tuple[str, ...]) -> None:
    """Raise PolicyError, naming the table and the key, where the policy names what is no class of the data."""
    for name, limit in policy.limits():
        if check := definition(name).check_classes:
            check(limit, classes)


def check_target(policy: Policy, target: Target) -> None:
    """Raise UsageProblem where the policy limits the latency or the memory of a target that is no device."""
    if target.cost not in ("instructions", "outputs"):
        return
    what = "emulated" if target.cost == "instructions" else "simulated"
    limits = [definition(name) for name, _ in policy.limits()]
    if timed := [f"[{limit.name}]" for limit in limits if limit.timed]:
        raise UsageProblem(f"{target.name} is {what} and has no latency; leave {', '.join(timed)} out")
    for limit in limits:
        if limit.device:
            raise UsageProblem(f"[{limit.name}] is measured on devices, and {target.name} is {what}; leave it out")


def needs_file(policy: Policy) -> list[str]:
    """Return a line for what the policy asks of the baseline's file that a stored baseline cannot do."""
    asked: dict[str, list[str]] = {}
    for name, _ in policy.limits():
        if must := definition(name).baseline_must:
            asked.setdefault(must, []).append(f"[{name}]")
    return [
        f"a stored baseline cannot {must}, and the policy's {', '.join(names)} asks for that; to judge it, give "
        "the gate the float file itself, or drop the limit"
        for must, names in asked.items()
    ]


def _check_files(limit: str, must: str, files: Sequence[Path]) -> None:
    for file in files:
        if must and saved(file):
            raise UsageProblem(
                f"{file.name} is only a saved evaluation, which cannot {must} ([{limit}]); give the artifact itself, "
                "or drop the limit"
            )
