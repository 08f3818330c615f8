"""The only owner of order: checkpoint, prune, export, quantize, evaluate, compare, time, judge, report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calibration.dataset import Dataset, load
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format
from targets.machine import machine_state
from targets.target import Instructions, TimingPlan
from toolchain.checkpoint import CheckpointRequest, Settled, settle
from toolchain.errors import UsageProblem
from toolchain.export import export
from toolchain.export.program import save_program
from toolchain.files import MARK, whole_folder
from toolchain.model import FloatModel
from toolchain.no_regret import to_add
from toolchain.profiling.place import PressPlace
from toolchain.progress import Progress, silent
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import sample
from toolchain.quantize.ranges import read_ranges
from toolchain.recipe import Recipe, shipped
from toolchain.report.markdown import markdown
from toolchain.report.report import CheckpointFacts, DatasetFacts, Report, Row
from toolchain.report.rows import measured_rows
from toolchain.report.winner import Prefer, chosen
from toolchain.shaping import Shaper
from toolchain.steps import Quantize
from toolchain.verdict.compare import comparison
from toolchain.verdict.evaluate import Evaluation
from toolchain.verdict.evidence import Evidence
from toolchain.verdict.gather import gather, stressed
from toolchain.verdict.latency import Profile
from toolchain.verdict.policy import Policy, default_policy
from toolchain.verdict.subject import Subject

FORMATS: tuple[Format, ...] = ("onnx", "tflite")


@dataclass(frozen=True)
class PressRequest:
    """What a press is asked to do.

    checkpoint: file or model name; words: how to read it. data, data_root: the images, as `calibration.dataset.load`
    takes them. recipes: in order; the float conversion always comes first. formats: what to end in. target: the place
    that files are read, costed and chosen on, by default each format's own. threads: for
    accuracy and training, 0 takes all cores; latency is always timed on one, as `plan` says. prefer: what winning means
    (`winner.Prefer`). command: recorded.
    """

    checkpoint: str
    data: str
    recipes: tuple[Recipe, ...]
    words: CheckpointRequest = field(default_factory=CheckpointRequest)
    data_root: Path | None = None
    formats: tuple[Format, ...] = FORMATS
    policy: Policy = field(default_factory=default_policy)
    plan: TimingPlan = field(default_factory=TimingPlan)
    target: str | None = None
    prefer: Prefer = "balanced"
    seed: int = 0
    threads: int = 0
    command: tuple[str, ...] = ()

    @property
    def place(self) -> PressPlace:
        """Where the files are read and costed."""
        return PressPlace(self.target, self.formats)

    def __post_init__(self) -> None:
        """Raise UsageProblem where a recipe ends in none of the formats, two share a name, or a baseline is pinned."""
        if self.policy.baseline is not None:
            raise UsageProblem(
                "the policy's [baseline] names a stored baseline, but a press judges by its own float file; leave that "
                "table out, or judge the files with `glyphpress gate`"
            )
        for recipe in self.recipes:
            if not set(recipe.formats) & set(self.formats):
                raise UsageProblem(
                    f"recipe {recipe.name} makes {', '.join(recipe.formats)} only, but --format asks for "
                    f"{', '.join(self.formats)}; change one of them"
                )
        names = [recipe.name for recipe in self.recipes]
        if len(set(names)) < len(names):
            raise UsageProblem(f"two recipes share a name ({', '.join(names)}); give each file a name of its own")


def press(request: PressRequest, out: Path, *, force: bool = False, progress: Progress = silent) -> Report:
    """Run the whole way and write artifacts, sidecars, report.json, report.md and raw timings into `out`.

    `out` appears whole or not at all. A verdict of FAIL or INCONCLUSIVE stands in the report and raises nothing.
    Raises the errors of the stages.
    """
    request.place.check(request.policy)
    with whole_folder(out, force=force) as folder:
        train, test = (load(request.words.data(request.data), split, request.data_root) for split in ("train", "test"))
        work = _Press(request, folder, train, test, progress)
        work.check()
        settled = settle(request.checkpoint, request.words, train, seed=request.seed)
        for recipe in request.recipes:
            work.shaper.check(settled.model, recipe)
        artifacts = list(work.artifacts(settled.model))
        report = work.judged(settled, artifacts)
        report.save(folder / MARK)
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    return report


@dataclass
class _Press:
    """One run: what several of its stages need."""

    request: PressRequest
    folder: Path
    train: Dataset
    test: Dataset
    progress: Progress
    calibrations: dict[int, CalibrationSet] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    stressed: Subject | None = None

    @property
    def log(self) -> Path:
        return self.folder / "converters.log"

    @property
    def shaper(self) -> Shaper:
        return Shaper(self.train, self.request.seed, self.request.threads, self.progress)

    def check(self) -> None:
        """Draw and read what quantization takes its ranges from, before the long work; raises what that raises."""
        for last in filter(None, (recipe.quantize for recipe in self.request.recipes)):
            if last.needs_images:
                self._calibration(last.calibration_images)
            if last.ranges:
                read_ranges(Path(last.ranges))

    def artifacts(self, model: FloatModel) -> Iterator[Artifact]:
        """Write every file, the float conversions first."""
        floats: dict[Format, Artifact] = {}
        for kind in self.request.place.kinds():
            self.progress(f"export {kind}", 0, 0)
            floats[kind] = export(model, kind, self.folder / f"{model.name}.float.{kind}", log=self.log)
            yield floats[kind]
        for recipe in self.request.recipes:
            yield from self._pressed(recipe, model, floats)

    def _pressed(self, recipe: Recipe, model: FloatModel, floats: dict[Format, Artifact]) -> Iterator[Artifact]:
        """Write the files of one recipe; the float file of a changed model is kept only where the recipe ends in it."""
        model = self.shaper.shaped(model, recipe)
        if recipe.shaping:
            save_program(model, self.folder / f"{model.name}.{recipe.name}.pt2")
        kinds = [kind for kind in self.request.place.kinds() if kind in recipe.formats]
        with tempfile.TemporaryDirectory() as spare:
            for kind in kinds if recipe.steps else ():
                self.progress(f"{recipe.name} {kind}", 0, 0)
                path = self.folder / f"{model.name}.{recipe.name}.{kind}"
                source = floats[kind]
                if recipe.shaping:
                    whole = Path(spare, f"{model.name}.{recipe.name}.float.{kind}") if recipe.quantize else path
                    name = "float" if recipe.quantize else recipe.name
                    source = export(model, kind, whole, recipe=name, log=self.log)
                if last := recipe.quantize:
                    yield self._quantized(recipe, last, model, source, path)
                else:
                    yield source

    def _quantized(self, recipe: Recipe, step: Quantize, model: FloatModel, source: Artifact, path: Path) -> Artifact:
        """Quantize one file; where the step has a fallback, layers are chosen on images of the train split."""
        request, place = self.request, self.request.place
        images = self._calibration(step.calibration_images) if step.needs_images else None
        ways: dict[str, Any] = {
            "recipe": recipe.name,
            "log": self.log,
            "saturates": place.saturates,
            "learned": model.input_ranges,
            "compared": None if images else sample(self.train, request.seed),
        }
        if not step.fallback:
            return quantize(source, step, images, path, **ways)
        from toolchain.quantize.fallback import quantize_with_fallback

        found = quantize_with_fallback(
            source,
            step,
            images,
            path,
            limit=request.policy.drop,
            train=self.train,
            test=self.test,
            read=lambda artifact, images: place.read(
                artifact, images, threads=request.threads, seed=request.seed, progress=self.progress
            ),
            seed=request.seed,
            progress=self.progress,
            **ways,
        )
        self.notes += [f"{path.name}: {line}" for line in found.lines()]
        return found.artifact

    def _calibration(self, size: int) -> CalibrationSet:
        if size not in self.calibrations:
            self.calibrations[size] = draw(self.train, size, seed=self.request.seed, exclude=self.test)
        return self.calibrations[size]

    def judged(self, settled: Settled, artifacts: list[Artifact]) -> Report:
        """Evaluate, compare, cost and judge every file where the request says; add one where that is called for."""
        policy = self.request.policy
        measured = self._measured(artifacts)
        while extra := to_add(measured.rows, measured.evidence, policy):
            artifacts = [*artifacts, self._extra(*extra, artifacts)]
            measured = self._measured(artifacts, measured)
        choice = chosen(measured.rows, measured.evidence, policy, self.request.prefer)
        model, finding = settled.model, settled.finding
        calibrations = list(self.calibrations.values())
        return Report(
            checkpoint=_checkpoint_facts(model, self.request.checkpoint),
            dataset=DatasetFacts(self.test.origin, len(self.test), self.test.classes, self.test.sha256),
            preprocess=model.preprocess,
            rows=choice.rows,
            comparisons=tuple(comparison(one.pairs) for one in measured.evidence),
            preprocess_note=f"found: {finding.sentence()}" if finding else "",
            calibration=calibrations[0].facts() if calibrations else None,
            policy=policy.to_dict(),
            machine=machine_state(),
            tools={name: version for artifact in artifacts for name, version in artifact.tools.items()},
            command=self.request.command,
            notes=(*choice.notes, *self.request.place.notes(), *self.notes),
            prefer=self.request.prefer,
            winners=choice.winners,
        )

    def _extra(self, name: str, base: str, artifacts: list[Artifact]) -> Artifact:
        """Make the file that the press adds by itself (`no_regret`)."""
        source = next(one for one in artifacts if one.path.name == base)
        step = shipped()[name].quantize
        assert step, "the recipes that a press adds quantize"
        path = self.folder / base.replace(".float.", f".{name}.")
        self.added.append(path.name)
        self.notes.append(
            f"{path.name} was added to what was asked for, of which nothing passes, is small and not slower than float"
        )
        return quantize(source, step, None, path, recipe=name, log=self.log)

    def _measured(self, artifacts: list[Artifact], before: _Measured | None = None) -> _Measured:
        """Read, cost and judge the files; what is known `before` of the first of them is kept, all but latencies."""
        place, seed, progress = self.request.place, self.request.seed, self.progress
        known = before or _Measured()
        evaluations = [
            *known.evaluations,
            *(
                place.read(artifact, self.test, threads=self.request.threads, seed=seed, progress=progress)
                for artifact in artifacts[len(known.evaluations) :]
            ),
        ]
        times = place.times(artifacts, self.request.plan, seed=seed, progress=progress)
        if times is not None:
            times.save_samples(self.folder / "timings.npz", force=True)
        evidence = self._evidence(artifacts, evaluations, times, known.evidence)
        counts = [*known.counts, *place.counts(artifacts[len(known.counts) :], progress=progress)]
        rows = measured_rows(artifacts, evaluations, evidence, self.request.policy, times=times, counts=counts)
        marked = [replace(row, added=row.name in self.added) for row in rows]
        return _Measured(marked, evaluations, evidence, counts)

    def _evidence(
        self, artifacts: list[Artifact], evaluations: list[Evaluation], times: Profile | None, known: list[Evidence]
    ) -> list[Evidence]:
        """Gather what the policy asks for of every file but the first, the baseline; of what is known only times."""
        policy = self.request.policy
        base, *candidates = (Subject(seen, file) for seen, file in zip(evaluations, artifacts, strict=True))
        first, *taken = [row.timings for row in times.rows] if times else [None] * len(artifacts)
        kept = [
            replace(proof, timings=own, baseline_timings=first)
            for proof, own in zip(known, taken[: len(known)], strict=True)
        ]
        if policy.stress is not None and self.stressed is None:
            self.stressed = stressed(policy.stress, base, self.test, self.progress)
        return kept + [
            gather(
                policy,
                self.stressed or base,
                own,
                self.test,
                self.train,
                times=(timings, first),
                progress=self.progress,
            )
            for own, timings in zip(candidates[len(known) :], taken[len(known) :], strict=True)
        ]


@dataclass(frozen=True)
class _Measured:
    """What is known of the files of a press; rows and evaluations of all of them, evidence of all but the first."""

    rows: list[Row] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    counts: list[Instructions | None] = field(default_factory=list)


def _checkpoint_facts(model: FloatModel, words: str) -> CheckpointFacts:
    from toolchain.inspection import counted

    parameters, macs = counted(model)
    kind = type(model.module).__name__ if model.module is not None else "ONNX"
    return CheckpointFacts(Path(words).name, kind, model.checkpoint_sha256, parameters, macs, model.history)
