"""Load the checkpoint that a user asks for and settle its preprocess, so that it can be pressed."""

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
    """The values of the checkpoint options.

    model: of `--model`. classes: of the model's columns; only labelled images of these are used. preprocess: from
    options, which win over the stored one; None without any. search: True searches for the preprocess even if the file
    stores it, None only if neither options nor file give it, False never. weights: of `--weights`, the key of the
    weights to load.
    """

    model: str | None = None
    trust_pickle: bool = False
    classes: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    search: bool | None = None
    weights: str | None = None

    def data(self, spec: str) -> str:
        """Return the data spec for those images of `spec` that belong to the model's classes."""
        return with_classes(spec, self.classes)


@dataclass(frozen=True)
class Settled:
    """A model whose preprocess is known, and the result of the search for it (None if it was given or stored)."""

    model: FloatModel
    finding: PreprocessFinding | None


def settle(path_or_name: str, request: CheckpointRequest, data: Dataset | None, *, seed: int = 0) -> Settled:
    """Load a checkpoint and settle its preprocess, searching with up to 1500 of the data's images if need be.

    If the request names classes, only images of those are used.

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
            raise PreprocessUnknown(f"{path_or_name} {_unknown_preprocess(loaded.scaling)}")
        return Settled(loaded.model, None)
    if data is None:
        raise PreprocessUnknown(
            f"{path_or_name} {_unknown_preprocess(loaded.scaling)}; finding it needs labelled training images: "
            "give --data with a train split"
        )
    selection = np.random.default_rng(seed).permutation(len(data))[:SEARCH_IMAGES]
    images, labels = data.images[selection], data.labels[selection]
    finding = search(forward(loaded.model), images, labels, classes=loaded.model.classes, stored=loaded.scaling)
    return Settled(loaded.with_preprocess(finding.winner, f"preprocess {finding.sentence()}"), finding)


def _unknown_preprocess(scaling: Preprocess | None) -> str:
    options = options_of(scaling or Preprocess())
    stored = f" beside mean {scaling.mean:g} and std {scaling.std:g}" if scaling else ""
    return f"does not say how it wants images{stored}; say it with options, such as {options}"
