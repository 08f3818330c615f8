"""The press: from a checkpoint to files that are evaluated, timed and judged, and to the report on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from targets.host.machine import machine_state
from toolchain.checkpoint import Settled, settle
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.press_files import FileMaker, PressFolder, PressImages
from toolchain.commands.press_measure import FileMeasurer, MeasuredFiles
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.files import MARK, whole_folder
from toolchain.evaluation.compare import comparison
from toolchain.report.press_report import report_markdown
from toolchain.report.report import CheckpointFacts, DatasetFacts, Report
from toolchain.report.rows import chosen
from toolchain.report.timings import not_quiet


def press(request: PressRequest, out: Path, context: RunContext | None = None) -> Report:
    """Press a model, and write artifacts, sidecars, report.json, report.md and raw timings into `out`.

    `out` appears whole or not at all. A verdict of FAIL or INCONCLUSIVE is in the report and raises nothing, and so is
    a file that a stage refused, as long as a float file was made (`Report.raise_unless_complete`). Raises the errors of
    the stages otherwise.
    """
    context = context or RunContext()
    request.press_target.refuse_impossible(request.policy)
    with whole_folder(out, force=context.force) as path:
        folder = PressFolder(path, out)
        images = PressImages.load(request, context)
        settled = _settled(request, images, context)
        with folder.keeping_log():
            artifacts = FileMaker(request, settled.model, images, folder, context).make()
            measured = FileMeasurer(request, images, folder, context).measure(artifacts)
        report = _report(request, settled, images, measured, folder)
        report.save(path / MARK)
        (path / "report.md").write_text(report_markdown(report), encoding="utf-8")
    return report


def _settled(request: PressRequest, images: PressImages, context: RunContext) -> Settled:
    """Load the checkpoint and settle how it takes its images, on the train split if there is one."""
    train = images.train_or_none
    words = request.words if train else replace(request.words, classes=images.test.classes)
    return settle(request.checkpoint, words, train, seed=context.seed)


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
        machine=machine_state(),
        tools={name: version for artifact in measured.artifacts for name, version in artifact.tools.items()},
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
    )


def _checkpoint_facts(model: FloatModel, name: str) -> CheckpointFacts:
    from toolchain.checkpoint.inspection import counted

    parameters, macs = counted(model)
    return CheckpointFacts(Path(name).name, model.kind, model.checkpoint_sha256, parameters, macs, model.history)
