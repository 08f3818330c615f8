"""Gather: the evidence that a policy needs, from artifacts, saved evaluations or a stored baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from calibration.dataset import Dataset
from targets.catalog import get
from targets.target import TimingPlan, Timings
from toolchain.errors import UsageProblem
from toolchain.evaluation.compare import Comparison, compare
from toolchain.evaluation.flip_images import flipped
from toolchain.evaluation.paired_answers import Pairs
from toolchain.evaluation.untracked import Training
from toolchain.formats.packed import packed_size
from toolchain.gate.baseline import check
from toolchain.gate.candidate import Subject, read_subject
from toolchain.gate.evidence import Evidence
from toolchain.gate.limits.leaks import find_leaks
from toolchain.gate.limits.runtimes import Place, answers_elsewhere
from toolchain.gate.limits.stress import StressLimit, StressPairs, pair_stress
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import profile
from toolchain.progress import Progress, silent

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
    read = partial(read_subject, dataset=dataset, train=train, target=target, progress=progress)
    base = read(baseline)
    own = read(candidate, likely=base.evaluation.preprocess)
    refuse_idle(target, (base, own))
    return compare(base.evaluation, own.evaluation)


def gather(
    policy: Policy,
    base: Subject,
    own: Subject,
    test: Dataset | None,
    train: Dataset | None = None,
    *,
    threads: int = 1,
    times: Times | None = None,
    progress: Progress = silent,
) -> Evidence:
    """Return all that `policy` needs to judge `own` against `base`; accuracy on all cores, latency on `threads`.

    test, train: the images behind the evaluations, None where they are not at hand. times: the candidate's and the
    baseline's timings where they were taken already. Raises UsageProblem, saying which limit needs it, when a file or
    images are missing.
    """
    check(policy, base, own)
    pairs = Pairs.of(base.evaluation, own.evaluation)
    timings, baseline_timings = times or timed(policy, base, [own], threads=threads, progress=progress)[0]
    stress: tuple[StressPairs, ...] = ()
    places: tuple[Place, ...] = ()
    leaks = None
    if policy.stress is not None:
        base, own = (stressed(policy.stress, subject, test, progress) for subject in (base, own))
        stress = pair_stress(base.stress, own.stress)
    if policy.runtimes is not None:
        file = own.file("be run elsewhere ([runtimes])")
        places = answers_elsewhere(policy.runtimes, file, own.evaluation, _need(test, "runtimes"), progress=progress)
    if policy.leaks is not None:
        leaks = find_leaks(own.evaluation, _need(train, "leaks"), own.file("say what calibrated it ([leaks])"))
    return Evidence(
        pairs=pairs,
        stress=stress,
        places=places,
        leaks=leaks,
        packed=_packed(own, progress) if policy.packed is not None else None,
        memory=_peak(own, threads) if policy.memory is not None else None,
        timings=timings,
        baseline_timings=baseline_timings,
        flipped=flipped(pairs, test) if test is not None else None,
        baseline_digest=base.stored.digest if base.stored else None,
    )


def stressed(limit: StressLimit, subject: Subject, test: Dataset | None, progress: Progress = silent) -> Subject:
    """Return the subject with its answers under damage, which are taken now unless it came with what it holds."""
    if subject.stress or subject.stored:
        return subject
    return replace(subject, stress=subject.under_damage(limit, _need(test, "stress"), progress=progress))


def timed(
    policy: Policy, base: Subject, candidates: Sequence[Subject], *, threads: int = 1, progress: Progress = silent
) -> list[Times]:
    """Return each candidate's timings and the baseline's, all taken in turns, as far as a limit asks for them."""
    if not policy.needs_timings:
        return [(None, None)] * len(candidates)
    subjects = [*candidates, base] if policy.needs_baseline_timings else candidates
    files = [subject.file("be timed") for subject in subjects]
    place = get(candidates[0].target) if candidates[0].target else None
    rows = profile(files, target=place, threads=threads, plan=GATE_PLAN, progress=progress).rows
    last = rows[-1].timings if policy.needs_baseline_timings else None
    return [(row.timings, last) for row in rows[: len(candidates)]]


def _packed(own: Subject, progress: Progress) -> int:
    return packed_size(own.file("be packed ([packed])").path, progress=progress)


def _peak(own: Subject, threads: int) -> int:
    artifact, facts = own.file("be opened ([memory])"), own.evaluation.facts
    if facts.cost != "latency":
        raise UsageProblem(
            f"[memory] is of devices, and {facts.target} is none; take another target, or drop the limit"
        )
    return get(facts.target).peak_memory(artifact, threads=threads)


def refuse_idle(target: str | None, subjects: Sequence[Subject]) -> None:
    """Raise UsageProblem for a target that would run nothing, since every subject is only saved answers."""
    if target and all(subject.artifact is None for subject in subjects):
        raise UsageProblem(f"--target {target} would run nothing: these are saved evaluations; leave it out")


def _need(images: Dataset | None, limit: str) -> Dataset:
    if images is None:
        raise UsageProblem(f"the policy's [{limit}] needs the images: add --data, or drop the limit")
    return images
