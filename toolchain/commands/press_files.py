"""The files of a press: float conversions first, then recipe by recipe. One that fails does not stop the others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from calibration.dataset import Dataset, Images
from calibration.errors import DataNotFound
from calibration.load import load, load_or_why, required
from calibration.sample import CalibrationSet, draw
from targets.artifact import Artifact, Format, sidecar_of
from targets.errors import RunFailed
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.converter_log import default_log
from toolchain.core.errors import CheckpointError, StageError
from toolchain.export import export, save_program
from toolchain.gate.collect import check_classes
from toolchain.gate.limits.drop import DropLimit
from toolchain.quantize import quantize
from toolchain.quantize.fidelity import sample
from toolchain.quantize.ranges import Ranges, read_ranges
from toolchain.recipe import Quantize, Recipe, shipped
from toolchain.report.report import Failure

_REFUSALS = (StageError, CheckpointError, RunFailed)
"""What keeps one file from being made or read, and says nothing of the others."""


@dataclass(frozen=True)
class PressImages:
    """The images of a press. training: the train split, or why there is none. calibrations: by number of images."""

    training: Dataset | DataNotFound
    test: Dataset
    calibrations: Mapping[int, CalibrationSet]

    @classmethod
    def load(cls, request: PressRequest, context: RunContext) -> PressImages:
        """Read both splits and draw what calibrates.

        Raises DataNotFound if a missing train split is needed, PolicyError if the policy names a class that the data
        does not have.
        """
        data = request.checkpoint_options.data(request.data)
        training, test = load_or_why(data, "train", context.data_root), load(data, "test", context.data_root)
        check_classes(request.policy, test.classes)
        if request.policy.needs_training_images:
            required(training, "the policy's [leaks] needs them; drop it, or take another --policy")
        if needing := [recipe.name for recipe in request.recipes if recipe.needs_training]:
            untrained = [name for name, recipe in shipped().items() if recipe.steps and not recipe.needs_training]
            required(training, f"--recipe {', '.join(needing)} needs them; {', '.join(untrained)} do without")
        steps = [recipe.quantize for recipe in request.recipes if recipe.quantize]
        sizes = dict.fromkeys(step.calibration_images for step in steps if step.needs_images)
        images = cls(training, test, {})
        calibrations = {size: draw(images.train, size, seed=context.seed, exclude=test, at_most=True) for size in sizes}
        return cls(training, test, calibrations)

    def in_order(self, classes: tuple[str, ...]) -> PressImages:
        """Return the images labelled in the order of a model's classes; calibration asks for no labels."""
        training = None if isinstance(self.training, DataNotFound) else self.training.in_order(classes)
        return replace(self, training=training or self.training, test=self.test.in_order(classes))

    @property
    def train(self) -> Dataset:
        """The train split; raises DataNotFound where there is none."""
        return required(self.training, "they are needed to calibrate, train or choose layers")

    @property
    def train_or_none(self) -> Dataset | None:
        """The train split, or None."""
        return None if isinstance(self.training, DataNotFound) else self.training

    def calibration(self, step: Quantize) -> CalibrationSet | None:
        """Return what calibrates a step, None where it needs no images."""
        return self.calibrations[step.calibration_images] if step.needs_images else None

    def comparison(self, seed: int) -> Images | None:
        """Return images on which a file that none calibrate is compared with its float file."""
        return None if self.train_or_none is None else sample(self.train_or_none, seed)


@dataclass
class PressFolder:
    """The folder of a press, and what its report will say of files that are missing or need a note.

    path: where the files are made; out: the name that the folder gets in the end; scratch: a folder for files that are
    not kept. ranges: those that each calibrated file got, by its name. sources: the float file that each quantized one
    was made of.
    """

    path: Path
    out: Path
    scratch: Path
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    ranges: dict[str, Ranges] = field(default_factory=dict)
    sources: dict[str, Artifact] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where converters write."""
        return self.path / "converters.log"

    @contextmanager
    def skipping(self, *names: str) -> Iterator[None]:
        """If the block cannot make or read these files, list them as failures, delete what is there, and go on."""
        try:
            yield
        except _REFUSALS as error:
            self.errors.append(error)
            reason = str(error).replace(str(self.path), str(self.out))
            self.failures += [Failure(name, reason) for name in names]
            for name in names:
                for path in (self.path / name, sidecar_of(self.path / name)):
                    path.unlink(missing_ok=True)

    @contextmanager
    def keeping_log(self) -> Iterator[None]:
        """If the block fails, so that the folder is deleted, keep the converters' log that the error names."""
        try:
            yield
        except _REFUSALS as error:
            if str(self.log) not in str(error):
                raise
            log = default_log()
            with self.log.open("rb") as source, log.open("ab") as sink:
                shutil.copyfileobj(source, sink)
            raise type(error)(str(error).replace(str(self.log), str(log))) from error

    def require_float(self, artifacts: list[Artifact]) -> None:
        """Raise the first error of the press unless the first artifact is a float one."""
        if not (artifacts and artifacts[0].recipe == "float"):
            raise self.errors[0]


def add_file(
    recipe: str, source: Artifact, path: Path, *, images: PressImages, folder: PressFolder, seed: int
) -> Artifact:
    """Quantize a float file by a shipped recipe that was not asked for, and note that."""
    step = shipped()[recipe].quantize
    assert step, "the recipes that a press adds quantize"
    folder.notes.append(
        f"{path.name} was added: no file that was asked for passes and is both small and not slower than float"
    )
    folder.sources[path.name] = source
    return quantize(source, step, None, path, recipe=recipe, log=folder.log, compared=images.comparison(seed))


@dataclass(frozen=True)
class FileMaker:
    """Makes the files of one press. A file that a stage refuses becomes a failure of `folder`.

    tried: formats and schemes whose quantizer took the model as it came.
    """

    request: PressRequest
    model: FloatModel
    images: PressImages
    folder: PressFolder
    context: RunContext
    tried: set[tuple[Format, str]] = field(default_factory=set)

    def make(self) -> list[Artifact]:
        """Write every file that is asked for, the float conversions first.

        Raises what makes a recipe impossible before any work, and the first error if no float file could be made.
        """
        recipes = self.request.recipes
        for recipe in recipes:
            if recipe.quantize and recipe.quantize.ranges:
                read_ranges(Path(recipe.quantize.ranges))
            recipe.check(self.model, self.context, self.images.training)
        self.folder.notes += [images.note for images in self.images.calibrations.values() if images.note]
        floats = self._floats()
        self.folder.require_float(list(floats.values()))
        planned = [chosen for recipe in recipes for chosen in self._planned(recipe)]
        possible = [(recipe, self._possible(recipe, floats)) for recipe in planned]
        pressed = [artifact for recipe, formats in possible for artifact in self._pressed(recipe, floats, formats)]
        return [*floats.values(), *pressed]

    def _floats(self) -> dict[Format, Artifact]:
        """Convert the model to every format."""
        floats: dict[Format, Artifact] = {}
        for format_ in self.request.press_target.formats():
            self._progress(f"export {format_}")
            path = self.folder.path / f"{self.model.name}.float.{format_}"
            with self.folder.skipping(path.name):
                floats[format_] = export(self.model, format_, path, log=self.folder.log)
        return floats

    def _planned(self, recipe: Recipe) -> list[Recipe]:
        """Return the recipe with what follows the model chosen, and note it; nothing where that cannot be chosen."""
        planned: list[Recipe] = []
        formats = [each for each in self.request.press_target.formats() if each in recipe.formats]
        with self.folder.skipping(*(self._path(recipe, format_).name for format_ in formats)):
            planned.append(recipe.planned(self.model, self.context, self.images.training))
        self.folder.notes += [f"{each.name}: {step.choice}" for each in planned for step in each.shaping if step.choice]
        return planned

    def _possible(self, recipe: Recipe, floats: Mapping[Format, Artifact]) -> list[Format]:
        """Return the formats that a recipe can end in, as far as that shows before anything is trained or pruned.

        The model as it came is quantized, or a student that has learned nothing is converted and quantized.
        """
        possible: list[Format] = []
        for format_ in self.request.press_target.formats():
            if format_ not in recipe.formats or not recipe.steps:
                continue
            name = self._path(recipe, format_).name
            with self.folder.skipping(name), tempfile.TemporaryDirectory() as scratch:
                self._try(recipe, format_, floats.get(format_), Path(scratch))
                possible.append(format_)
        return possible

    def _try(self, recipe: Recipe, format_: Format, source: Artifact | None, scratch: Path) -> None:
        """Raise what keeps a recipe from ending in a format."""
        student, step = recipe.untrained(self.model, self.context, self.images.training), recipe.quantize
        if student:
            self._progress(f"trying {recipe.name} {format_}")
            source = export(student, format_, scratch / f"student.float.{format_}", log=self.folder.log)
        if source is None:
            raise StageError(f"there is no float .{format_} file to make it of")
        # What has no shaping is quantized at once anyway; ranges belong to the file that is still to be made.
        if not (recipe.shaping and step) or step.ranges or ((format_, step.scheme) in self.tried and not student):
            return
        self._progress(f"trying {recipe.name} {format_}")
        plain = step.model_copy(update={"fallback": 0, "keep": ()})
        path = scratch / f"tried.{format_}"
        quantize(source, plain, self.images.calibration(step), path, recipe=recipe.name, log=self.folder.log)
        if not student:
            self.tried.add((format_, step.scheme))

    def _pressed(self, recipe: Recipe, floats: Mapping[Format, Artifact], formats: list[Format]) -> list[Artifact]:
        """Write the files of one recipe; the float file of a changed model is kept only if the recipe ends in it."""
        if not formats:
            return []
        paths = {format_: self._path(recipe, format_) for format_ in formats}
        shaped: list[FloatModel] = []
        with self.folder.skipping(*(path.name for path in paths.values())):
            model = recipe.apply(self.model, self.context, self.images.training)
            if recipe.shaping:
                save_program(model, self.folder.path / f"{self.model.name}.{recipe.name}.pt2")
            shaped.append(model)
        artifacts: list[Artifact] = []
        for model, (format_, path) in product(shaped, paths.items()):
            self._progress(f"{recipe.name} {format_}")
            with self.folder.skipping(path.name):
                source = self._source(recipe, model, format_, floats)
                step = recipe.quantize
                artifacts.append(self._quantized(recipe.name, step, model, source, path) if step else source)
        return artifacts

    def _source(
        self, recipe: Recipe, model: FloatModel, format_: Format, floats: Mapping[Format, Artifact]
    ) -> Artifact:
        """Return the float file that a recipe quantizes, or ends in if it does not quantize."""
        if not recipe.shaping:
            return floats[format_]
        if not recipe.quantize:
            return export(model, format_, self._path(recipe, format_), recipe=recipe.name, log=self.folder.log)
        path = self.folder.scratch / f"{model.name}.{recipe.name}.float.{format_}"
        return export(model, format_, path, log=self.folder.log)

    def _quantized(self, recipe: str, step: Quantize, model: FloatModel, source: Artifact, path: Path) -> Artifact:
        """Quantize one file; where the step has a fallback, layers are chosen on images of the train split."""
        self.folder.sources[path.name] = source
        target = self.request.press_target
        calibration = self.images.calibration(step)
        compared = None if calibration else self.images.comparison(self.context.seed)

        def make(step: Quantize, path: Path) -> Artifact:
            with tempfile.TemporaryDirectory() as scratch:
                ranges = Path(scratch) / "ranges.json" if step.calibrated else None
                artifact = quantize(
                    source,
                    step,
                    calibration,
                    path,
                    recipe=recipe,
                    log=self.folder.log,
                    saturates=target.saturates,
                    save_ranges=ranges,
                    learned=model.input_ranges,
                    compared=compared,
                )
                if ranges:
                    self.folder.ranges[path.name] = read_ranges(ranges)
            return artifact

        if not step.fallback:
            return make(step, path)
        from toolchain.commands.quantize import quantize_with_fallback

        fallback = quantize_with_fallback(
            source,
            step,
            path,
            make=make,
            limit=self.request.policy.settings(DropLimit),
            train=self.images.train,
            test=self.images.test,
            calibration=calibration,
            read=lambda artifact, images: target.read(artifact, images, self.context),
            context=self.context,
        )
        self.folder.notes += [f"{path.name}: {line}" for line in fallback.lines()]
        return fallback.artifact

    def _path(self, recipe: Recipe, format_: Format) -> Path:
        return self.folder.path / f"{self.model.name}.{recipe.name}.{format_}"

    def _progress(self, label: str) -> None:
        self.context.progress(label, 0, 0)
