"""The only owner of order: checkpoint, prune, export, quantize, evaluate, compare, time, judge, report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from calibration.dataset import Dataset
from calibration.load import load, load_or_why
from targets.artifact import Artifact
from targets.host.machine import machine_state
from targets.session import Instructions
from toolchain.checkpoint import Settled, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.press_extra_file import to_add
from toolchain.commands.press_files import Maker
from toolchain.commands.press_request import PressRequest
from toolchain.core.files import MARK, whole_folder
from toolchain.core.progress import Progress, silent
from toolchain.evaluation.compare import comparison
from toolchain.evaluation.evaluate import Evaluation
from toolchain.gate.baseline import check_floor, prepared
from toolchain.gate.candidate import JudgedFile
from toolchain.gate.collect import check_classes, gather
from toolchain.gate.evidence import Evidence
from toolchain.profiling.latency import Profile
from toolchain.quantize import quantize
from toolchain.recipe import shipped
from toolchain.report.markdown import markdown
from toolchain.report.report import CheckpointFacts, DatasetFacts, Report, Row
from toolchain.report.rows import measured_rows
from toolchain.report.timings import not_quiet
from toolchain.report.winner import chosen


def press(request: PressRequest, out: Path, *, force: bool = False, progress: Progress = silent) -> Report:
    """Run the whole way and write artifacts, sidecars, report.json, report.md and raw timings into `out`.

    `out` appears whole or not at all. A verdict of FAIL or INCONCLUSIVE stands in the report and raises nothing, and so
    does a file that a stage refused, as long as a float file was made (`Report.raise_unless_complete`). Raises the
    errors of the stages otherwise.
    """
    request.press_target.check(request.policy)
    with whole_folder(out, force=force) as folder:
        data = request.words.data(request.data)
        training, test = load_or_why(data, "train", request.data_root), load(data, "test", request.data_root)
        check_classes(request.policy, test.classes)
        maker = Maker(request, folder, out, training, test, progress)
        maker.check()
        words = replace(request.words, classes=request.words.classes if maker.known else test.classes)
        settled = settle(request.checkpoint, words, maker.known, seed=request.seed)
        for recipe in request.recipes:
            recipe.check(settled.model, maker.run, training)
        with maker.log_kept():
            artifacts = list(maker.artifacts(settled.model))
            report = _Press(request, folder, test, progress, maker).judged(settled, artifacts)
        report.save(folder / MARK)
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    return report


@dataclass
class _Press:
    """One run from the files that were made to its report."""

    request: PressRequest
    folder: Path
    test: Dataset
    progress: Progress
    maker: Maker
    added: list[str] = field(default_factory=list)
    prepared: JudgedFile | None = None

    def judged(self, settled: Settled, artifacts: list[Artifact]) -> Report:
        """Evaluate, compare, cost and judge every file where the request says; add one where that is called for."""
        policy = self.request.policy
        measured = self._measured(artifacts)
        artifacts = measured.artifacts
        while extra := to_add(measured.rows, measured.evidence, policy):
            artifacts = [*artifacts, self._extra(*extra, artifacts)]
            measured = self._measured(artifacts, measured)
            artifacts = measured.artifacts
        choice = chosen(measured.rows, measured.evidence, policy, self.request.prefer)
        model, finding = settled.model, settled.finding
        calibrations = list(self.maker.calibrations.values())
        return Report(
            checkpoint=_checkpoint_facts(model, self.request.checkpoint),
            dataset=DatasetFacts(self.test.origin, len(self.test), self.test.classes, self.test.sha256),
            preprocess=model.preprocess,
            rows=choice.rows,
            comparisons=tuple(comparison(one.pairs) for one in measured.evidence),
            preprocess_note=finding.evidence if finding else "",
            calibration=calibrations[0].facts() if calibrations else None,
            policy=policy.to_dict(),
            machine=machine_state(),
            tools={name: version for artifact in artifacts for name, version in artifact.tools.items()},
            command=self.request.command,
            notes=(
                *choice.notes,
                *self.request.press_target.notes(),
                *self.request.notes(),
                *not_quiet(measured.taints),
                *self.maker.notes,
            ),
            failures=tuple(self.maker.failures),
            prefer=self.request.prefer,
            winners=choice.winners,
        )

    def _extra(self, name: str, base: str, artifacts: list[Artifact]) -> Artifact:
        """Make the file that the press adds by itself (`press_extra_file`)."""
        source = next(one for one in artifacts if one.path.name == base)
        step = shipped()[name].quantize
        assert step, "the recipes that a press adds quantize"
        path = self.folder / base.replace(".float.", f".{name}.")
        self.added.append(path.name)
        self.maker.notes.append(
            f"{path.name} was added to what was asked for, of which nothing passes, is small and not slower than float"
        )
        return quantize(source, step, None, path, recipe=name, log=self.maker.log, compared=self.maker.compared)

    def _measured(self, artifacts: list[Artifact], before: _Measured | None = None) -> _Measured:
        """Read, cost and judge the files; what is known `before` of the first of them is kept, all but latencies."""
        target, seed, progress = self.request.press_target, self.request.seed, self.progress
        known = before or _Measured()
        evaluations, read = list(known.evaluations), list(artifacts[: len(known.evaluations)])
        for artifact in artifacts[len(read) :]:
            with self.maker.keeping(artifact.path.name):
                evaluations.append(
                    target.read(artifact, self.test, threads=self.request.threads, seed=seed, progress=progress)
                )
                read.append(artifact)
            if len(evaluations) == 1:
                base = evaluations[0]
                check_floor(self.request.policy, base.artifact, base.predictions, base.labels)
        artifacts = self.maker.with_float(read)
        times = target.times(artifacts, self.request.plan, seed=seed, progress=progress)
        if times is not None:
            times.save_samples(self.folder / "timings.npz", force=True)
        evidence = self._evidence(artifacts, evaluations, times, known.evidence)
        counts = [*known.counts, *target.counts(artifacts[len(known.counts) :], progress=progress)]
        rows = measured_rows(artifacts, evaluations, evidence, self.request.policy, times=times, counts=counts)
        marked = [replace(row, added=row.name in self.added) for row in rows]
        return _Measured(artifacts, marked, evaluations, evidence, counts, times.taints if times else ())

    def _evidence(
        self, artifacts: list[Artifact], evaluations: list[Evaluation], times: Profile | None, known: list[Evidence]
    ) -> list[Evidence]:
        """Gather what the policy asks for of every file but the first, the baseline; of what is known only times."""
        policy = self.request.policy
        base, *candidates = (JudgedFile(seen, file) for seen, file in zip(evaluations, artifacts, strict=True))
        first, *taken = [row.timings for row in times.rows] if times else [None] * len(artifacts)
        kept = [
            replace(proof, timings=own, baseline_timings=first)
            for proof, own in zip(known, taken[: len(known)], strict=True)
        ]
        if self.prepared is None:
            self.prepared = prepared(policy, base, self.test, self.progress)
        return kept + [
            gather(
                policy,
                self.prepared,
                own,
                self.test,
                self.maker.known,
                times=(timings, first),
                progress=self.progress,
            )
            for own, timings in zip(candidates[len(known) :], taken[len(known) :], strict=True)
        ]


@dataclass(frozen=True)
class _Measured:
    """What is known of the files of a press that could be read; evidence is of all but the first.

    taints: what made the machine less than quiet while they were timed.
    """

    artifacts: list[Artifact] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    counts: list[Instructions | None] = field(default_factory=list)
    taints: tuple[str, ...] = ()


def _checkpoint_facts(model: FloatModel, words: str) -> CheckpointFacts:
    from toolchain.checkpoint.inspection import counted

    parameters, macs = counted(model)
    return CheckpointFacts(Path(words).name, model.kind, model.checkpoint_sha256, parameters, macs, model.history)
