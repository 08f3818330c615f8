"""The gate, step by step: refuse what cannot be judged, read the files, gather, store and judge evidence, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from calibration.load import load, train_split
from targets.catalog import get
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.files import refuse_existing
from toolchain.evaluation.untracked import training_images
from toolchain.gate.baseline import Baseline
from toolchain.gate.candidate import JudgedFile, is_saved, read_judged_file
from toolchain.gate.collect import (
    check_baseline,
    check_classes,
    check_inputs,
    check_target,
    gather,
    prepared,
    refuse_unused_target,
    save_baseline,
    timed,
)
from toolchain.gate.gate import Evidence, check_pin, judge
from toolchain.gate.policy import Policy
from toolchain.report.judgement import Judgement
from toolchain.report.outputs import Outputs, write


@dataclass(frozen=True)
class GateRequest:
    """What a gate is asked to judge. Raises UsageProblem where that cannot be meant.

    baseline, candidates: artifacts, saved evaluations (.npz) or, as the baseline, a stored one. data: the images behind
    them; train_data: those that the candidates were trained and calibrated on, by default the train split of `data`.
    Both are specs as `calibration.load.load` takes them. evidence: where to store that of each candidate, in their
    order.
    """

    policy: Policy
    baseline: Path
    candidates: tuple[Path, ...]
    data: str | None = None
    train_data: str | None = None
    target: str | None = None
    evidence: tuple[Path, ...] = ()
    outputs: Outputs = field(default_factory=Outputs)

    def __post_init__(self) -> None:
        """Check the request by itself, before any file is read."""
        if not self.candidates:
            raise UsageProblem("there is nothing to judge; give at least one --candidate")
        _refuse_twice([path.name for path in self.candidates if not is_saved(path)], "candidates are called")
        if self.evidence and len(self.evidence) != len(self.candidates):
            raise UsageProblem(
                f"{len(self.candidates)} candidates and {len(self.evidence)} --evidence files; give one for each"
            )
        _refuse_twice([path.absolute() for path in (*self.evidence, *self.outputs.files())], "outputs are called")
        train = bool(self.train_data or self.data)
        check_inputs(self.policy, self.baseline, self.candidates, images=self.data is not None, train=train)
        if self.train_data and not self.policy.needs_training_images:
            raise UsageProblem("--train-data is read for [leaks] only, which the policy does not limit; add it there")


def gate(
    request: GateRequest,
    context: RunContext | None = None,
    *,
    on_judgement: Callable[[Judgement], object] | None = None,
) -> Judgement:
    """Gather the evidence on every candidate, store it where asked, judge it, and write the outputs that are asked for.

    Several candidates compete, so that each is judged by `Policy.among`. A verdict of FAIL or INCONCLUSIVE stands in
    the judgement and raises nothing (`Judgement.raise_unless_passed` does). context: its threads are for latency, by
    default one. on_judgement: called before the outputs are written, or where the evidence could not be stored. Raises
    UsageProblem over existing files before any work, and the errors of the stages.
    """
    context, outputs = context or RunContext(threads=1), request.outputs
    outputs.refuse_existing()
    for path in request.evidence:
        refuse_existing(path, force=outputs.force)
    for path in (request.baseline, *request.candidates):
        if not path.is_file():
            raise EvidenceError(f"{path}: no such file; give an artifact, or an evaluation that was saved")
    if request.target:
        check_target(request.policy, get(request.target))
    evidence = _gathered(request, context)
    try:
        for path, gathered in zip(request.evidence, evidence, strict=False):
            gathered.save(path, force=outputs.force)
    except OSError:
        if on_judgement:
            on_judgement(_judged(request.policy, evidence, request.candidates, ()))
        raise
    judgement = _judged(request.policy, evidence, request.candidates, request.evidence)
    return _written(judgement, evidence, outputs, on_judgement)


def judge_stored(
    policy: Policy,
    stored: Sequence[Path],
    outputs: Outputs | None = None,
    *,
    on_judgement: Callable[[Judgement], object] | None = None,
) -> Judgement:
    """Judge stored evidence again, one file a candidate, without running anything; as `gate` otherwise."""
    outputs = outputs or Outputs()
    outputs.refuse_existing()
    if {path.absolute() for path in stored} & {path.absolute() for path in outputs.files()}:
        raise UsageProblem("an output would replace the evidence that is judged; give it a file of its own")
    evidence = [Evidence.load(path) for path in stored]
    return _written(_judged(policy, evidence, stored, stored), evidence, outputs, on_judgement)


def store_baseline(
    artifact: Path,
    policy: Policy,
    data: str,
    output: Path,
    *,
    target: str | None = None,
    context: RunContext | None = None,
) -> Baseline:
    """Store an artifact's answers on the test images as the baseline of `policy`; raises as `save_baseline` does."""
    context = context or RunContext()
    refuse_existing(output, force=context.force)
    images, train = load(data, "test", context.data_root), training_images(data, context.data_root)
    check_classes(policy, images.classes)
    return save_baseline(artifact, policy, images, output, train=train, target=target, context=context)


def _judged(policy: Policy, evidence: list[Evidence], files: Sequence[Path], stored: Sequence[Path]) -> Judgement:
    judged = [(gathered, judge(policy, gathered, competitors=len(evidence))) for gathered in evidence]
    digests = [sha256(path.read_bytes()).hexdigest() for path in stored]
    return Judgement.of(policy, judged, files=files, digests=digests)


def _written(
    judgement: Judgement,
    evidence: list[Evidence],
    outputs: Outputs,
    on_judgement: Callable[[Judgement], object] | None,
) -> Judgement:
    if on_judgement:
        on_judgement(judgement)
    write(judgement, evidence, outputs)
    return judgement


def _gathered(request: GateRequest, context: RunContext) -> list[Evidence]:
    """Return the evidence on each candidate; the baseline is read once for all of them."""
    policy, root = request.policy, context.data_root
    test = load(request.data, "test", root) if request.data else None
    if test is not None:
        check_classes(policy, test.classes)
    train = None
    if policy.needs_training_images and (spec := request.train_data or request.data):
        why = "the policy's [leaks] needs the training images; name others with --train-data, or drop [leaks]"
        train = train_split(spec, root, why)
    read = partial(
        read_judged_file,
        dataset=test,
        train=training_images(request.train_data or request.data, root) if request.data else None,
        target=request.target,
        progress=context.progress,
    )
    baseline = read(request.baseline)
    check_pin(policy, baseline.stored.digest if baseline.stored else None, request.baseline.name)
    baseline = prepared(policy, baseline, test, context.progress)
    candidates = [read(path, likely=baseline.evaluation.preprocess) for path in request.candidates]
    _refuse_same_file(request.candidates, candidates)
    refuse_unused_target(request.target, (baseline, *candidates))
    for candidate in candidates:
        # Again in `gather`, but here before minutes of timing.
        check_baseline(policy, baseline, candidate)
    timings = timed(policy, baseline, candidates, context)
    return [
        gather(policy, baseline, candidate, test, train, times=times, context=context)
        for candidate, times in zip(candidates, timings, strict=True)
    ]


def _refuse_same_file(paths: Sequence[Path], candidates: Sequence[JudgedFile]) -> None:
    first: dict[str, Path] = {}
    for path, candidate in zip(paths, candidates, strict=True):
        other = first.setdefault(candidate.evaluation.artifact_sha256, path)
        if other is not path:
            name = candidate.evaluation.artifact
            raise UsageProblem(
                f"{other} and {path} are answers of one and the same file, {name}; give only one of them"
            )


def _refuse_twice(names: Sequence[object], what: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageProblem(f"two {what} {twice[0]}; give each a name of its own")
