"""How the files of a press are made: float conversions first, then recipe by recipe; one that fails costs no other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.dataset import Dataset, Images
from calibration.errors import DataNotFound
from calibration.load import required
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format, sidecar_of
from targets.errors import RunFailed
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.converter_log import default_log
from toolchain.core.errors import CheckpointError, StageError
from toolchain.core.progress import Progress
from toolchain.export import export
from toolchain.export.program import save_program
from toolchain.gate.limits.drop import DropLimit
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import sample
from toolchain.quantize.ranges import read_ranges
from toolchain.recipe import Quantize, Recipe, shipped
from toolchain.report.report import Failure

REFUSALS = (StageError, CheckpointError, RunFailed)
"""What keeps one file from being made or read, and says nothing of the others."""


@dataclass
class Maker:
    """The files of one press. folder: where they are made; out: the name that it will have. failures: those missing."""

    request: PressRequest
    folder: Path
    out: Path
    training: Dataset | DataNotFound
    test: Dataset
    progress: Progress
    calibrations: dict[int, CalibrationSet] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    proven: set[tuple[Format, str]] = field(default_factory=set)

    @property
    def train(self) -> Dataset:
        """The train split; raises DataNotFound where there is none."""
        return required(self.training, "they are needed to calibrate, train or choose layers")

    @property
    def known(self) -> Dataset | None:
        """The train split, None where there is none."""
        return None if isinstance(self.training, DataNotFound) else self.training

    @property
    def compared(self) -> Images | None:
        """Images to compare a quantized file on where none calibrate it."""
        return None if self.known is None else sample(self.known, self.request.seed)

    @property
    def log(self) -> Path:
        """Where converters write."""
        return self.folder / "converters.log"

    @property
    def run(self) -> RunContext:
        """What every step is run with."""
        return self.request.run(self.progress)

    def check(self) -> None:
        """Draw and read what quantization takes its ranges from, before the long work; raises what that raises."""
        if self.request.policy.needs_training_images:
            required(self.training, "the policy's [leaks] needs them; drop it, or take another --policy")
        if needing := [recipe.name for recipe in self.request.recipes if recipe.needs_training]:
            others = [name for name, recipe in shipped().items() if recipe.steps and not recipe.needs_training]
            required(self.training, f"--recipe {', '.join(needing)} needs them; {', '.join(others)} do without")
        for last in filter(None, (recipe.quantize for recipe in self.request.recipes)):
            if last.needs_images:
                self._calibration(last.calibration_images)
            if last.ranges:
                read_ranges(Path(last.ranges))

    @contextmanager
    def keeping(self, *names: str) -> Iterator[None]:
        """Go on where the block cannot make or read these files: they are listed as failures and leave nothing."""
        try:
            yield
        except REFUSALS as error:
            self.errors.append(error)
            reason = str(error).replace(str(self.folder), str(self.out))
            self.failures += [Failure(name, reason) for name in names]
            for name in names:
                for path in (self.folder / name, sidecar_of(self.folder / name)):
                    path.unlink(missing_ok=True)

    @contextmanager
    def log_kept(self) -> Iterator[None]:
        """Where the block fails, so that the folder goes, keep the converters' log that the error names."""
        try:
            yield
        except REFUSALS as error:
            if str(self.log) not in str(error):
                raise
            kept = default_log()
            with self.log.open("rb") as source, kept.open("ab") as sink:
                shutil.copyfileobj(source, sink)
            raise type(error)(str(error).replace(str(self.log), str(kept))) from error

    def with_float(self, artifacts: list[Artifact]) -> list[Artifact]:
        """Return the artifacts, a float one first; raises the first failure where there is no float one."""
        if not (artifacts and artifacts[0].recipe == "float"):
            raise self.errors[0]
        return artifacts

    def artifacts(self, model: FloatModel) -> Iterator[Artifact]:
        """Write every file, the float conversions first; raises the first failure where none of those is made."""
        floats: dict[Format, Artifact] = {}
        for kind in self.request.press_target.kinds():
            self.progress(f"export {kind}", 0, 0)
            path = self.folder / f"{model.name}.float.{kind}"
            with self.keeping(path.name):
                floats[kind] = export(model, kind, path, log=self.log)
        self.with_float(list(floats.values()))
        yield from floats.values()
        possible = {recipe.name: self._possible(recipe, model, floats) for recipe in self.request.recipes}
        for recipe in self.request.recipes:
            yield from self._pressed(recipe, model, floats, possible[recipe.name])

    def _possible(self, recipe: Recipe, model: FloatModel, floats: dict[Format, Artifact]) -> list[Format]:
        """Return the formats that a recipe can end in, as far as that shows before anything is trained or pruned.

        The model as it came is quantized, or a student that has learned nothing is converted and quantized.
        """
        kinds = [kind for kind in self.request.press_target.kinds() if kind in recipe.formats and recipe.steps]
        possible: list[Format] = []
        for kind in kinds:
            with self.keeping(f"{model.name}.{recipe.name}.{kind}"), tempfile.TemporaryDirectory() as spare:
                self._tried(recipe, model, kind, floats.get(kind), Path(spare))
                possible.append(kind)
        return possible

    def _tried(self, recipe: Recipe, model: FloatModel, kind: Format, source: Artifact | None, spare: Path) -> None:
        """Raise what keeps a recipe from ending in a format."""
        student, last = recipe.untrained(model, self.run, self.training), recipe.quantize
        if student:
            self.progress(f"trying {recipe.name} {kind}", 0, 0)
            source = export(student, kind, spare / f"student.float.{kind}", log=self.log)
        if source is None:
            raise StageError(f"there is no float .{kind} file to make it of")
        # What has no shaping is quantized at once anyway; ranges belong to the file that is still to be made.
        if not (recipe.shaping and last) or last.ranges or ((kind, last.scheme) in self.proven and not student):
            return
        self.progress(f"trying {recipe.name} {kind}", 0, 0)
        images = self._calibration(last.calibration_images) if last.needs_images else None
        step = last.model_copy(update={"fallback": 0, "keep": ()})
        quantize(source, step, images, spare / f"tried.{kind}", recipe=recipe.name, log=self.log)
        if not student:
            self.proven.add((kind, last.scheme))

    def _pressed(
        self, recipe: Recipe, model: FloatModel, floats: dict[Format, Artifact], kinds: list[Format]
    ) -> Iterator[Artifact]:
        """Write the files of one recipe; the float file of a changed model is kept only where the recipe ends in it."""
        if not kinds:
            return
        paths = {kind: self.folder / f"{model.name}.{recipe.name}.{kind}" for kind in kinds}
        shaped: list[FloatModel] = []
        with self.keeping(*(path.name for path in paths.values())):
            shaped.append(recipe.apply(model, self.run, self.training))
            if recipe.shaping:
                save_program(shaped[0], self.folder / f"{model.name}.{recipe.name}.pt2")
        with tempfile.TemporaryDirectory() as spare:
            for own in shaped:
                for kind, path in paths.items():
                    self.progress(f"{recipe.name} {kind}", 0, 0)
                    made: list[Artifact] = []
                    with self.keeping(path.name):
                        made.append(self._made(recipe, own, path, floats.get(kind), Path(spare)))
                    yield from made

    def _made(self, recipe: Recipe, model: FloatModel, path: Path, source: Artifact | None, spare: Path) -> Artifact:
        kind: Format = "onnx" if path.suffix == ".onnx" else "tflite"
        last = recipe.quantize
        if recipe.shaping:
            whole = spare / f"{model.name}.{recipe.name}.float.{kind}" if last else path
            source = export(model, kind, whole, recipe="float" if last else recipe.name, log=self.log)
        assert source, "a recipe without a float file is not possible"
        return self._quantized(recipe, last, model, source, path) if last else source

    def _quantized(self, recipe: Recipe, step: Quantize, model: FloatModel, source: Artifact, path: Path) -> Artifact:
        """Quantize one file; where the step has a fallback, layers are chosen on images of the train split."""
        request, target = self.request, self.request.press_target
        images = self._calibration(step.calibration_images) if step.needs_images else None
        ways: dict[str, Any] = {
            "recipe": recipe.name,
            "log": self.log,
            "saturates": target.saturates,
            "learned": model.input_ranges,
            "compared": None if images else self.compared,
        }
        if not step.fallback:
            return quantize(source, step, images, path, **ways)
        from toolchain.commands.quantize_fallback import quantize_with_fallback

        found = quantize_with_fallback(
            source,
            step,
            images,
            path,
            limit=request.policy.settings(DropLimit),
            train=self.train,
            test=self.test,
            read=lambda artifact, images: target.read(
                artifact, images, threads=request.threads, seed=request.seed, progress=self.progress
            ),
            context=self.run,
            **ways,
        )
        self.notes += [f"{path.name}: {line}" for line in found.lines()]
        return found.artifact

    def _calibration(self, size: int) -> CalibrationSet:
        if size not in self.calibrations:
            drawn = draw(self.train, size, seed=self.request.seed, exclude=self.test, at_most=True)
            self.calibrations[size] = drawn
            self.notes += [drawn.note] * bool(drawn.note)
        return self.calibrations[size]
