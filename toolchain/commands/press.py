"""The press: from a checkpoint to files that are read, timed and judged, and to the report on them; and its demo."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Dataset, chunks
from calibration.load import load
from glyphpress.registry import loaded
from targets.artifact import Artifact
from targets.errors import TargetError
from targets.host.machine import described, machine_state
from targets.session import Instructions, Timings
from toolchain.checkpoint import Settled, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.press_files import FileMaker, PressFolder, PressImages, add_file
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.errors import GlyphpressError
from toolchain.core.files import MARK, refuse_folder, whole_file, whole_folder
from toolchain.core.resume import may_replace, resumable
from toolchain.evaluation.compare import comparison
from toolchain.evaluation.timings import not_quiet
from toolchain.explain.explanation import LayerError, explain
from toolchain.export import installed_formats, reference_logits
from toolchain.gate.candidate import JudgedFile
from toolchain.gate.collect import gather, prepared
from toolchain.gate.gate import Evidence, check_floor, judge_limit
from toolchain.gate.limit import overall
from toolchain.gate.limits import definition
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import Profile
from toolchain.profiling.per_operator import Breakdown, per_operator
from toolchain.recipe import shipped
from toolchain.report.page.press_page import PressDetails, press_html
from toolchain.report.page.press_ruling import shipped_row
from toolchain.report.press_report import report_markdown
from toolchain.report.report import CheckpointFacts, DatasetFacts, Report, Row
from toolchain.report.rows import chosen, fastest_float, measured_rows, rivals, small_and_not_slower
from toolchain.stats.decision import Outcome
from toolchain.training.train import train


def press(request: PressRequest, out: Path, context: RunContext | None = None) -> Report:
    """Press a model, and write artifacts, sidecars, report.json, report.md, report.html and raw timings into `out`.

    `out` appears whole or not at all. A verdict of FAIL or INCONCLUSIVE is in the report and raises nothing, and so is
    a file that a stage refused, as long as a float file was made (`Report.raise_unless_complete`). Raises the errors of
    the stages otherwise. A killed press can be continued where it trained (`resumable`).
    """
    request.press_target.refuse_impossible(request.policy)
    context = context or RunContext()
    refuse_folder(out, force=may_replace(out, context))
    with resumable(out, context) as run:
        return _press(request, out, run)


def _press(request: PressRequest, out: Path, context: RunContext) -> Report:
    with whole_folder(out, force=context.force) as path, tempfile.TemporaryDirectory() as scratch:
        folder = PressFolder(path, out, Path(scratch))
        images = PressImages.load(request, context)
        settled = _settled(request, images, context)
        images = images.in_order(settled.model.classes)
        if any(recipe.needs_training for recipe in request.recipes):
            _refuse_untaught(request.policy, settled.model, images.test)
        request, notes = request.for_model(settled.model)
        folder.notes += notes
        images = images if request.recipes else replace(images, calibrations={})
        with folder.keeping_log():
            artifacts = FileMaker(request, settled.model, images, folder, context).make()
            measured = FileMeasurer(request, images, folder, context).measure(artifacts)
        report = _report(request, settled, images, measured, folder)
        report.save(path / MARK)
        (path / "report.md").write_text(report_markdown(report), encoding="utf-8")
        page = press_html(report, _details(report, measured, images, folder, context))
        (path / "report.html").write_text(page, encoding="utf-8")
    return report


def _settled(request: PressRequest, images: PressImages, context: RunContext) -> Settled:
    """Load the checkpoint and settle how it takes its images, on the train split if there is one."""
    training = images.train_or_none
    options = request.checkpoint_options
    options = options if training else replace(options, classes=images.test.classes)
    return settle(request.checkpoint, options, training, seed=context.seed)


def _refuse_untaught(policy: Policy, model: FloatModel, test: Dataset) -> None:
    """Raise EvidenceError where nothing could be judged against the model's answers: a training would be in vain."""
    answers = [reference_logits(model, test.images[part]).argmax(axis=1) for part in chunks(len(test))]
    check_floor(policy, model.name, np.concatenate(answers), test.labels)


def _report(
    request: PressRequest, settled: Settled, images: PressImages, measured: MeasuredFiles, folder: PressFolder
) -> Report:
    """Choose the winner and put together the report."""
    choice = chosen(measured.rows, measured.evidence, request.policy, request.prefer)
    model, finding, test = settled.model, settled.finding, images.test
    calibration = next(iter(images.calibrations.values()), None)
    return Report(
        checkpoint=_checkpoint_facts(model, request.checkpoint),
        dataset=DatasetFacts(test.origin, len(test), test.classes, test.sha256),
        preprocess=model.preprocess,
        rows=choice.rows,
        comparisons=tuple(comparison(evidence.pairs) for evidence in measured.evidence),
        preprocess_note=finding.evidence if finding else "",
        calibration=calibration.facts() if calibration else None,
        policy=request.policy.to_dict(),
        machine=_machine(measured.timings),
        tools={name: version for artifact in measured.artifacts for name, version in artifact.tools.items()}
        | {plugin.package: plugin.version for plugin in loaded()},
        command=request.command,
        notes=(
            *choice.notes,
            *request.press_target.notes(),
            *request.notes(),
            *not_quiet(measured.taints),
            *folder.notes,
        ),
        failures=tuple(folder.failures),
        prefer=request.prefer,
        winners=choice.winners,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _machine(timings: Timings | None) -> dict[str, Any]:
    """Return the machine that the files were timed on, a board for example, when it had timed them; else this one."""
    if timings is None or timings.facts.simulated:
        return described(machine_state())
    start = dict(timings.machine)
    end = start.pop("end", {})
    return described(start | end) | {"busy_cores": round(timings.busy_cores, 2)}


_EXPLAINED = 32
"""Images on which the page's errors by layer are found: in half a second for a small model."""


def _details(
    report: Report, measured: MeasuredFiles, images: PressImages, folder: PressFolder, context: RunContext
) -> PressDetails:
    """Return what the page shows beside the report: the evidence, and what the file that ships looks like inside."""
    best = shipped_row(report)
    shipped_file = next((file for file in measured.artifacts if best and file.path.name == best.name), None)
    if shipped_file is None:
        return PressDetails(measured.evidence)
    name = shipped_file.path.name
    base = folder.sources.get(name)
    return PressDetails(
        measured.evidence,
        shipped_file,
        _layer_errors(base, shipped_file, images, context) if base else (),
        folder.ranges.get(name),
        _operators(shipped_file, best.target) if best else None,
    )


def _operators(file: Artifact, target: str) -> Breakdown | str:
    """Return the time of each operator of a file, or why it is not known."""
    try:
        return per_operator([file], [target])[0]
    except (GlyphpressError, TargetError) as error:
        return str(error)


def _layer_errors(
    base: Artifact, made: Artifact, images: PressImages, context: RunContext
) -> tuple[LayerError, ...] | str:
    """Return the error of every layer of a file against its float file, or why they are not known."""
    calibration = next(iter(images.calibrations.values()), None)
    pixels = calibration.images if calibration else images.comparison(context.seed)
    if pixels is None:
        return "there are no training images to find them on"
    pixels = pixels[:_EXPLAINED]
    sample = Dataset(pixels, np.zeros(len(pixels), np.int64), base.classes, "compared", "train", "")
    try:
        return explain(base, made, sample).layers
    except (GlyphpressError, TargetError) as error:
        return str(error)


def _checkpoint_facts(model: FloatModel, name: str) -> CheckpointFacts:
    from toolchain.checkpoint.inspection import counted

    parameters, macs = counted(model)
    return CheckpointFacts(Path(name).name, model.kind, model.checkpoint_sha256, parameters, macs, model.history)


EXTRA_RECIPES = ("weight-int8", "float16")
"""Shipped recipes of the files that a press may add, the smaller file first.

Their weights are stored in 8 or 16 bits and expand when the file is loaded, so it runs on float's own kernels: it is
small on every processor, and slower on none.
"""


@dataclass(frozen=True)
class MeasuredFiles:
    """The files of a press that could be read, the float baseline first, and what was measured of them.

    files: with their answers. rows: of the report. evidence: of all but the first. counts: instructions, on an emulated
    target. taints: what kept the machine from being quiet while the files were timed.
    """

    files: list[JudgedFile] = field(default_factory=list)
    rows: tuple[Row, ...] = ()
    evidence: list[Evidence] = field(default_factory=list)
    counts: list[Instructions | None] = field(default_factory=list)
    taints: tuple[str, ...] = ()

    @property
    def timings(self) -> Timings | None:
        """Those of the baseline, which was timed in turns with all others; None where nothing was compared or timed."""
        return self.evidence[0].baseline_timings if self.evidence else None

    @property
    def artifacts(self) -> list[Artifact]:
        """The files themselves."""
        return [file.file("be pressed") for file in self.files]


@dataclass(frozen=True)
class FileMeasurer:
    """Reads, times and judges the files of one press, and adds one if none of them is small, passes and is not slow.

    A file that cannot be read becomes a failure of `folder`.
    """

    request: PressRequest
    images: PressImages
    folder: PressFolder
    context: RunContext

    def measure(self, artifacts: Sequence[Artifact]) -> MeasuredFiles:
        """Return what was measured, and save the times in the folder; raises the first error if no float file is left.

        All files are timed in turns, so that they are timed again with each one that is added.
        """
        measured = self._measured(artifacts, MeasuredFiles())
        added = set[str]()
        while extra := extra_recipe(measured.rows, measured.evidence, self.request.policy):
            recipe, base = extra
            path = self.folder.path / base.replace(".float.", f".{recipe}.")
            if path.name in added:
                # It was made already, but could not be read.
                break
            added.add(path.name)
            source = next(artifact for artifact in measured.artifacts if artifact.path.name == base)
            artifact = add_file(recipe, source, path, images=self.images, folder=self.folder, seed=self.context.seed)
            measured = self._measured([*measured.artifacts, artifact], measured)
        return replace(measured, rows=tuple(replace(row, added=row.name in added) for row in measured.rows))

    def _measured(self, artifacts: Sequence[Artifact], earlier: MeasuredFiles) -> MeasuredFiles:
        """Measure the files; of those that were measured earlier only the latencies are taken again."""
        target, policy = self.request.press_target, self.request.policy
        files = self._read(artifacts, earlier.files)
        read = [file.file("be pressed") for file in files]
        self.folder.require_float(read)
        times = target.times(read, self.request.plan, self.context)
        if times is not None:
            times.save_samples(self.folder.path / "timings.npz", force=True)
        files[0] = prepared(policy, files[0], self.images.test, self.context.progress)
        evidence = self._evidence(files, times, earlier.evidence)
        counts = [*earlier.counts, *target.counts(read[len(earlier.counts) :], self.context)]
        evaluations = [file.evaluation for file in files]
        rows = measured_rows(read, evaluations, evidence, policy, times=times, counts=counts)
        return MeasuredFiles(files, rows, evidence, counts, times.taints if times else ())

    def _read(self, artifacts: Sequence[Artifact], earlier: Sequence[JudgedFile]) -> list[JudgedFile]:
        """Read the test images with every file that was not read earlier."""
        files = list(earlier)
        for artifact in artifacts[len(files) :]:
            with self.folder.skipping(artifact.path.name):
                made = replace(artifact, preprocess_source="press")
                evaluation = self.request.press_target.read(made, self.images.test, self.context)
                files.append(JudgedFile(evaluation, artifact))
                if len(files) == 1:
                    answers, labels = evaluation.predictions, evaluation.labels
                    check_floor(self.request.policy, evaluation.artifact, answers, labels)
        return files

    def _evidence(
        self, files: Sequence[JudgedFile], times: Profile | None, earlier: Sequence[Evidence]
    ) -> list[Evidence]:
        """Return the evidence on every file but the first, the baseline; of the earlier ones only the times are new."""
        baseline, *candidates = files
        first, *timings = [row.timings for row in times.rows] if times else [None] * len(files)
        timed_again = [
            replace(proof, timings=latest, baseline_timings=first)
            for proof, latest in zip(earlier, timings[: len(earlier)], strict=True)
        ]
        return timed_again + [
            gather(
                self.request.policy,
                baseline,
                candidate,
                self.images.test,
                self.images.train_or_none,
                times=(latest, first),
                context=replace(self.context, threads=1),
            )
            for candidate, latest in zip(candidates[len(earlier) :], timings[len(earlier) :], strict=True)
        ]


def extra_recipe(rows: Sequence[Row], evidence: Sequence[Evidence], policy: Policy) -> tuple[str, str] | None:
    """Return the recipe of the file that is worth adding and the float file to make it from, or None.

    A file is added if none that was asked for passes, is smaller than the fastest float file that passes, and is not
    shown to be slower. It is made from that float file. Nothing is added if nothing was quantized, if a file that
    answers exactly as float does did not pass, or if there are too few images for one to pass. evidence: of all rows
    but the first, the baseline.
    """
    base = fastest_float(rows)
    pressed = [(row, proof) for row, proof in zip(rows[1:], evidence, strict=True) if row.recipe != "float"]
    if base is None or not pressed:
        return None
    if any(small_and_not_slower(row, base) for row in rivals(rows, evidence, policy)):
        return None
    if any(small_and_not_slower(row, base) and not proof.pairs.flipped.any() for row, proof in pressed):
        return None
    if _too_few_images(evidence[0], policy, competitors=len(pressed) + 1):
        return None
    made = {(row.recipe, row.format) for row in rows}
    recipe = next((name for name in EXTRA_RECIPES if (name, base.format) not in made), None)
    return (recipe, base.name) if recipe else None


def _too_few_images(evidence: Evidence, policy: Policy, *, competitors: int) -> bool:
    """Return whether there are too few images for even float's own answers to pass."""
    pairs = evidence.pairs
    same = Evidence(replace(pairs, after=pairs.before, after_confidence=pairs.before_confidence))
    limits = [
        (name, limit) for name, limit in policy.among(competitors).limits() if definition(name).evidence == ("pairs",)
    ]
    verdicts = [judge_limit(name, limit, same) for name, limit in limits]
    return bool(verdicts) and overall(verdicts) is not Outcome.PASS


DEMO_DATA = "builtin:digits"
DEMO_RECIPES = ("dynamic-int8", "static-int8", "pruned-static-int8")
DEMO_MARGIN = 0.02
"""A few hundred test images cannot decide a smaller drop: a single one of them is 0.17 percentage points."""


def demo(out: Path, context: RunContext | None = None) -> Report:
    """Train cnn-small on the built-in digits and press it into `out`; the trained model is left there as model.pt.

    Where litert-torch cannot be installed (it has x86-64 wheels only), only ONNX files are made.
    """
    context = context or RunContext()
    refuse_folder(out, force=context.force)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "cnn-digits.pt"
        train(load(DEMO_DATA, "train"), out=model, context=replace(context, force=False))
        request = PressRequest(
            checkpoint=str(model),
            data=DEMO_DATA,
            recipes=tuple(shipped()[name] for name in DEMO_RECIPES),
            formats=installed_formats(),
            policy=Policy.model_validate({"drop": DropLimit(max=DEMO_MARGIN, confidence=0.95)}),
            command=("glyphpress", "demo"),
        )
        report = press(request, out, context)
        with whole_file(out / "model.pt", force=True) as part:
            # The temporary folder may lie on another disk.
            shutil.copyfile(model, part)
    return report
