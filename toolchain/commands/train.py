"""`train`: fit a reference network, after a cross-validation where one is asked for, in a run that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from calibration.dataset import Dataset
from calibration.load import load_or_why, train_split
from calibration.sample import split_off_test
from targets.host.cache import cache_folder
from targets.preprocess import Preprocess
from toolchain.core.context import RunContext
from toolchain.core.resume import resumable
from toolchain.training.fit import EpochResult
from toolchain.training.folds import CrossValidation, FoldResult, cross_validate
from toolchain.training.settings import TrainSettings
from toolchain.training.train import TrainResult, train, training_inputs, with_batch_that_fits
from toolchain.training.transfer import Start


def images_to_train(data: str, context: RunContext) -> tuple[Dataset, Dataset]:
    """Return the images to fit and those to test; without a test split, a fifth of the first."""
    images, test = images_of_folds(data, context)
    if test:
        return images, test
    context.say(f"{data} has no test split, so a fifth of each class of the train split is held out to test")
    return split_off_test(images)


def images_of_folds(data: str, context: RunContext) -> tuple[Dataset, Dataset | None]:
    """Return the images that folds share out, which measure them too, and the test split where there is one."""
    images = train_split(data, context.data_root, "train needs training images")
    test = load_or_why(data, "test", context.data_root)
    return images, test if isinstance(test, Dataset) else None


@dataclass(frozen=True)
class NetworkTraining:
    """A configuration, and the images that it is fitted to.

    settings_fit: whether the batch may shrink to the number of images. start: weights to start from, in place of
    `model` and `preprocess`.
    """

    images: Dataset
    model: str
    settings: TrainSettings
    settings_fit: bool
    preprocess: Preprocess | None
    start: Start | None

    def fit(
        self,
        images: Dataset,
        test: Dataset | None,
        context: RunContext,
        *,
        out: Path | None = None,
        on_epoch: Callable[[EpochResult], None] | None = None,
    ) -> TrainResult:
        """Fit it to `images`, which may be a part of its own; raises as `train` does."""
        settings = with_batch_that_fits(self.settings, images, context.seed) if self.settings_fit else self.settings
        return train(
            images,
            model=self.model,
            settings=settings,
            preprocess=self.preprocess,
            start=self.start,
            test=test,
            out=out,
            on_epoch=on_epoch,
            context=context,
        )

    def cross_validate(self, folds: int, on_fold: Callable[[FoldResult], None], context: RunContext) -> CrossValidation:
        """Measure it by folds of its images, in a context of `resumable`; raises as `cross_validate` does."""
        context.say(f"{self.model} in {folds} folds of {len(self.images):,} images: {self.settings.summary()}")
        if self.start:
            context.say(
                "if the file of --from was trained on these images, it knows every fold; other images are read worse"
            )
        return cross_validate(
            self.images, folds, self.fit, inputs=self._inputs(context), on_fold=on_fold, context=context
        )

    def resumable(self, folds: int | None, out: Path | None, context: RunContext) -> AbstractContextManager[RunContext]:
        """Return `resumable` for a file, or for a cross-validation alone, whose state is in the user's cache.

        There its name has a digest of all that the run depends on, so that each configuration has a state of its own.
        """
        if out is None:
            made_of = json.dumps({"folds": folds, **self._inputs(context)})
            out = cache_folder(f"folds/{self.model}", made_of)
        return resumable(out, context)

    def _inputs(self, context: RunContext) -> dict[str, str]:
        return training_inputs(
            self.images,
            model=self.model,
            settings=self.settings,
            preprocess=self.preprocess,
            start=self.start,
            context=context,
        )
