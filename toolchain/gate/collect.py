"""Collect: the files of a gate are read and checked, and become the evidence that a policy needs, or a stored baseline.

A stored baseline is refused where it is foreign or stale. It is foreign where it is of other images, of a digest that
the policy does not name, or of another line of models: the candidate goes back to another checkpoint, and neither file
is the checkpoint of the other. A file whose origin is not recorded (no sidecar, or an old one) may belong to any line.
It is stale where another major version of the candidate's runtime gave its answers, or where they were taken under
other damage than the policy asks for. Minor versions are recorded in the evidence and accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from calibration.dataset import Dataset
from glyphpress.registry import loaded
from targets.artifact import Artifact
from targets.catalog import get
from targets.session import TimingPlan, Timings
from targets.target import Target
from toolchain.core.context import Progress, RunContext, silent
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import refuse_existing
from toolchain.core.versions import tool_versions
from toolchain.evaluation.compare import Comparison, Pairs, compare, flipped
from toolchain.evaluation.untracked import Training
from toolchain.gate.baseline import Baseline
from toolchain.gate.candidate import JudgedFile, Sources, is_saved, read_judged_file, without_file
from toolchain.gate.gate import Evidence, check_pin
from toolchain.gate.limits import LIMITS, definition
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
    refuse_unused_target(target, (baseline_file, candidate_file))
    return compare(baseline_file.evaluation, candidate_file.evaluation)


def save_baseline(
    path: Path,
    policy: Policy,
    dataset: Dataset,
    output: Path,
    *,
    train: Training | None = None,
    target: str | None = None,
    context: RunContext | None = None,
) -> Baseline:
    """Read `dataset` with a float artifact, under damage too where `policy` has [stress], and store its answers.

    path: an artifact, or a saved evaluation where the policy has no [stress]. Raises UsageProblem over an existing
    file unless the context forces it, and for a name that does not end in .npz, and what `read_judged_file` raises.
    """
    if output.suffix != ".npz":
        raise UsageProblem(f"{output} should end in .npz, as every stored baseline does; rename it")
    context = context or RunContext()
    refuse_existing(output, force=context.force)
    judged = read_judged_file(path, dataset, train=train, target=target, progress=context.progress)
    # Without `stored`, so that what another stored baseline does not hold is asked for, and refused.
    prepared_file = prepared(policy, replace(judged, stored=None), dataset, context.progress)
    line = judged.artifact or judged.stored
    baseline = Baseline(
        judged.evaluation,
        prepared_file.stress if policy.needs("stress") else (),
        line.parent_sha256 if line else None,
        line.checkpoint_sha256 if line else None,
        tool_versions()["glyphpress"],
    )
    baseline.save(output, force=context.force)
    return baseline


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
    its `threads`, by default one. Raises UsageProblem, naming the limit, when a file or images are missing.
    """
    check_baseline(policy, baseline, candidate)
    pairs = Pairs.of(baseline.evaluation, candidate.evaluation)
    context = context or RunContext(threads=1)
    timings, baseline_timings = times or timed(policy, baseline, [candidate], context)[0]
    baseline, candidate = (prepared(policy, file, test, context.progress) for file in (baseline, candidate))
    sources = Sources(candidate, baseline, test, train, context)
    parts: dict[str, Any] = {}
    collected: dict[str, Any] = {}
    for name, limit in policy.limits():
        limit_definition = definition(name)
        if limit_definition.collect:
            into = parts if name in LIMITS else collected
            into[limit_definition.evidence[0]] = limit_definition.collect(limit, sources)
    return Evidence(
        pairs=pairs,
        timings=timings,
        baseline_timings=baseline_timings,
        flipped=flipped(pairs, test) if test is not None else None,
        baseline_digest=baseline.stored.digest if baseline.stored else None,
        collected=collected,
        plugins=tuple(sorted({*loaded(), *baseline.evaluation.plugins, *candidate.evaluation.plugins})),
        **parts,
    )


def prepared(policy: Policy, judged: JudgedFile, test: Dataset | None, progress: Progress = silent) -> JudgedFile:
    """Return the file with the answers that limits read once, such as a baseline's under damage for all candidates."""
    for name, limit in policy.limits():
        if prepare := definition(name).prepare:
            judged = prepare(limit, judged, test, progress)
    return judged


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


def check_baseline(policy: Policy, baseline: JudgedFile, candidate: JudgedFile) -> None:
    """Raise EvidenceError where `baseline` is not the one that the policy names, or is stored and stale or foreign.

    Where the baseline is an artifact, only the policy's [baseline] and the order of the classes are checked: it was
    chosen for this very run.
    """
    check_pin(policy, baseline.stored.digest if baseline.stored else None, baseline.evaluation.artifact)
    check_class_order(baseline, candidate)
    if baseline.stored is None:
        return
    _check_line(baseline.stored, candidate)
    _check_runtime(baseline, candidate)
    for name, limit in policy.limits():
        if check_limit := definition(name).check_stored:
            check_limit(limit, baseline.stored)


def refuse_unused_target(target: str | None, judged: Sequence[JudgedFile]) -> None:
    """Raise UsageProblem for a target that would run nothing, since every file is only saved answers."""
    if target and all(file.artifact is None for file in judged):
        raise UsageProblem(f"--target {target} would run nothing: these are saved evaluations; leave it out")


def check_inputs(policy: Policy, baseline: Path, candidates: Sequence[Path], *, images: bool, train: bool) -> None:
    """Raise UsageProblem, naming the limit or the file, where the policy needs a file or images that were not given.

    images, train: whether there are test images, and those that the candidates were trained and calibrated on.
    """
    for file in (baseline, *candidates):
        if not is_saved(file) and not images:
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
    """Raise PolicyError, naming the table and the key, where the policy names a class that the data does not have."""
    for name, limit in policy.limits():
        if check := definition(name).check_classes:
            check(limit, classes)


def check_target(policy: Policy, target: Target) -> None:
    """Raise UsageProblem where the policy limits the latency or the memory of a target that is no device."""
    if target.cost not in ("instructions", "outputs"):
        return
    what = "emulated" if target.cost == "instructions" else "simulated"
    limits = [definition(name) for name, _ in policy.limits()]
    if timed_limits := [f"[{limit.name}]" for limit in limits if limit.timed]:
        raise UsageProblem(f"{target.name} is {what} and has no latency; leave {', '.join(timed_limits)} out")
    for limit in limits:
        if limit.device:
            raise UsageProblem(f"[{limit.name}] is measured on devices, and {target.name} is {what}; leave it out")


def needs_file(policy: Policy) -> list[str]:
    """Return a warning for each thing that limits of the policy need and a stored baseline cannot do."""
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
        if must and is_saved(file):
            raise without_file(file.name, f"{must} ([{limit}])")


def _check_line(stored: Baseline, candidate: JudgedFile) -> None:
    source, evaluation = candidate.artifact or candidate.stored, stored.evaluation
    if source is None or not stored.checkpoint_sha256 or not source.checkpoint_sha256:
        return
    candidate_sha256 = candidate.evaluation.artifact_sha256
    # A parent in common is not enough: who wrote another checkpoint beside it contradicts the parent.
    same_line = stored.checkpoint_sha256 in _lineage(candidate_sha256, source)
    if not same_line and source.checkpoint_sha256 not in _lineage(evaluation.artifact_sha256, stored):
        raise EvidenceError(
            f"the stored baseline is foreign: {evaluation.artifact} came from checkpoint "
            f"{stored.checkpoint_sha256[:12]}, {candidate.evaluation.artifact} from {source.checkpoint_sha256[:12]}; "
            "store a baseline of the candidate's own float file, or give the float file itself to compare different "
            "models"
        )


def _lineage(sha256: str, source: Artifact | Baseline) -> set[str]:
    """Return the digests of a file and of its ancestors, as far as they are known."""
    return {digest for digest in (sha256, source.parent_sha256, source.checkpoint_sha256) if digest}


def check_class_order(baseline: JudgedFile, candidate: JudgedFile) -> None:
    """Raise EvidenceError where the candidate's columns stand for the classes in another order than the baseline's.

    Answers are matched by the classes' names, so both are read rightly here. An application with a list of its own that
    gets the candidate in the baseline's place would take one class for another.
    """
    orders = [file.evaluation.column_classes for file in (baseline, candidate)]
    # Other classes altogether are refused when the answers are paired.
    for column, (before, after) in enumerate(zip(*orders, strict=False)):
        if before != after and baseline.evaluation.classes == candidate.evaluation.classes:
            raise EvidenceError(
                f"{candidate.evaluation.artifact} has its classes in another order than "
                f"{baseline.evaluation.artifact}: column {column} is '{after}' there and '{before}' in the baseline, "
                "so an application with its own list of classes would read one for another; make a candidate in the "
                "baseline's order, or give a baseline in the candidate's"
            )


def _check_runtime(baseline: JudgedFile, candidate: JudgedFile) -> None:
    stored_facts, facts = baseline.evaluation.facts, candidate.evaluation.facts
    if stored_facts.runtime == facts.runtime and stored_facts.version.split(".")[0] != facts.version.split(".")[0]:
        raise EvidenceError(
            f"the stored baseline is stale: {stored_facts.runtime} {stored_facts.version} answered it, "
            f"{facts.version} the candidate; store it again"
        )
