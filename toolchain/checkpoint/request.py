"""What a user says about a checkpoint -> a model that is ready to be pressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.choice import with_classes
from targets.preprocess import Preprocess
from toolchain.checkpoint.float_model import FloatModel, forward
from toolchain.checkpoint.load import load
from toolchain.checkpoint.preprocess_search import SEARCH_IMAGES, PreprocessFinding, search
from toolchain.checkpoint.preprocess_trial import options_of
from toolchain.core.errors import PreprocessUnknown

if TYPE_CHECKING:
    from calibration.dataset import Dataset


@dataclass(frozen=True)
class CheckpointRequest:
    """The words of the checkpoint options.

    model: of `--model`. classes: what its columns stand for; of labelled images only theirs are used. preprocess: from
    options, which win over what is stored; None without any. search: look for it even where the file says it; None
    looks only where neither options nor file say it; False never looks. weights: of `--weights`, the key of the weights
    to take.
    """

    model: str | None = None
    trust_pickle: bool = False
    classes: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    search: bool | None = None
    weights: str | None = None

    def data(self, spec: str) -> str:
        """Return the words for the images of a data set that are of the model's classes."""
        return with_classes(spec, self.classes)


@dataclass(frozen=True)
class Settled:
    """A model whose preprocess is known, and the search that found it (None where it was given or stored)."""

    model: FloatModel
    finding: PreprocessFinding | None


def settle(path_or_name: str, request: CheckpointRequest, data: Dataset | None, *, seed: int = 0) -> Settled:
    """Load a checkpoint and settle its preprocess, on up to 1500 of the data's images where it must be searched.

    Of data with more classes than the request names, only the images of those are used.

    Raises what `load` and `search` raise, and PreprocessUnknown when the preprocess is unknown and there is no data.
    """
    if data is not None and request.classes:
        data = data.choose(request.classes)
    loaded = load(
        path_or_name,
        model=request.model,
        classes=data.classes if data else request.classes,
        preprocess=request.preprocess,
        trust_pickle=request.trust_pickle,
        weights=request.weights,
        chosen=bool(request.classes),
    )
    wants_search = not loaded.preprocess_known if request.search is None else request.search
    if not wants_search:
        if not loaded.preprocess_known:
            raise PreprocessUnknown(f"{path_or_name} {_unsaid(loaded.scaling)}")
        return Settled(loaded.model, None)
    if data is None:
        raise PreprocessUnknown(
            f"{path_or_name} {_unsaid(loaded.scaling)}; finding it needs labelled training images: give --data with a "
            "train split"
        )
    chosen = np.random.default_rng(seed).permutation(len(data))[:SEARCH_IMAGES]
    images, labels = data.images[chosen], data.labels[chosen]
    finding = search(forward(loaded.model), images, labels, classes=loaded.model.classes, stored=loaded.scaling)
    return Settled(loaded.with_preprocess(finding.winner, f"preprocess {finding.sentence()}"), finding)


def _unsaid(scaling: Preprocess | None) -> str:
    options = options_of(scaling or Preprocess())
    stored = f" beside mean {scaling.mean:g} and std {scaling.std:g}" if scaling else ""
    return f"does not say how it wants images{stored}; say it with options, such as {options}"
