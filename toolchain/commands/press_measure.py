"""What is measured of the files of a press: answers, cost and evidence; and which file is worth adding to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from targets.artifact import Artifact
from targets.session import Instructions
from toolchain.commands.press_files import PressFolder, PressImages, add_file
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.gate.baseline import check_floor, prepared
from toolchain.gate.candidate import JudgedFile
from toolchain.gate.collect import gather
from toolchain.gate.evidence import Evidence
from toolchain.gate.gate import judge_limit, overall
from toolchain.gate.limits import definition
from toolchain.gate.policy import Policy
from toolchain.profiling.latency import Profile
from toolchain.report.report import Row
from toolchain.report.rows import fastest_float, measured_rows, rivals, small_and_not_slower
from toolchain.stats.decision import Outcome

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
                evaluation = self.request.press_target.read(artifact, self.images.test, self.context)
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
        again = [
            replace(evidence, timings=own, baseline_timings=first)
            for evidence, own in zip(earlier, timings[: len(earlier)], strict=True)
        ]
        return again + [
            gather(
                self.request.policy,
                baseline,
                candidate,
                self.images.test,
                self.images.train_or_none,
                times=(own, first),
                context=replace(self.context, threads=1),
            )
            for candidate, own in zip(candidates[len(earlier) :], timings[len(earlier) :], strict=True)
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
