"""Load a checkpoint file, or a built-in model by its name, as a FloatModel, and settle its preprocess."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.spec import classes_text, with_classes
from targets.artifact import file_sha256
from targets.errors import translated
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.checkpoint import torch_files
from toolchain.checkpoint.computed_weights import bake
from toolchain.checkpoint.file_arguments import build_and_fit
from toolchain.checkpoint.float_model import FloatModel, OnnxModel, Range, TorchModel, settle_output
from toolchain.checkpoint.form_choice import Forms, found, likelier, unknown_preprocess
from toolchain.checkpoint.kinds import KIND_NAMES, kind_name, kind_of, refuse_quantized_pickle
from toolchain.checkpoint.metadata import (
    Metadata,
    agreed_classes,
    build_reference,
    metadata_facts,
    metadata_of,
    our_facts,
    read_values,
)
from toolchain.checkpoint.onnx_normal import normalise
from toolchain.checkpoint.preprocess_search import SEARCH_IMAGES, PreprocessFinding
from toolchain.checkpoint.source import ModelSource, parse_source
from toolchain.checkpoint.state import class_name, fit_state, modules_in, preferred, tensors_in
from toolchain.core.errors import CheckpointError, OptionNeeded, PreprocessUnknown, UsageProblem
from toolchain.core.packages import require
from toolchain.formats import catalog
from toolchain.formats.onnx.estimators import estimator_in
from toolchain.formats.onnx.file import read_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

    from calibration.dataset import Dataset, Images, Labels
    from toolchain.checkpoint.input_form import Channels

_FLOAT = ".float"
"""What a press puts between a model's name and the suffix; removed here, or a second press would add another."""


@dataclass(frozen=True)
class Loaded:
    """A FloatModel, and whether its preprocess was given or stored; if not, the model holds a default to be replaced.

    width: columns of the model's logits, which can be one more than its classes. scaling: mean and std that the file
    stores without the rest of the preprocess. otherwise: the model as it takes images in another way
    (`input_form`); which way is right, only labelled images show. normalized: the same with three channels that it
    normalizes itself, so that it takes pixels from 0 to 1. by_channel: whether the file itself stores numbers for each
    channel, those of the first of `normalized`.
    """

    model: FloatModel
    preprocess_known: bool
    width: int
    scaling: Preprocess | None = None
    otherwise: tuple[FloatModel, ...] = ()
    normalized: tuple[FloatModel, ...] = ()
    by_channel: bool = False

    @property
    def forms(self) -> Forms:
        """Return every form of the model, among which labelled images decide."""
        return Forms((self.model, *self.otherwise), self.normalized, by_channel=self.by_channel)


@dataclass(frozen=True)
class _Request:
    path: Path
    source: ModelSource | None
    reference_name: str | None
    classes: tuple[str, ...]
    preprocess: Preprocess | None
    trust_pickle: bool
    weights: str | None
    chosen: bool = False
    scaling: Preprocess | None = None
    unread: str = ""
    by_channel: Channels | None = None
    reordered: str = ""

    def agreed(self, stored: Metadata) -> _Request:
        """Fill in from the file what the caller did not give; given values win, except for the data's classes."""
        if self.reference_name and stored.model in models.names() and stored.model != self.reference_name:
            raise CheckpointError(
                f"{self.path} holds the weights of a {stored.model}, not of a {self.reference_name}; leave --model out"
            )
        preprocess = self.preprocess or stored.preprocess
        classes = agreed_classes(self.classes, stored.classes, self.path, chosen=self.chosen, names=stored.names)
        reordered = self.classes and sorted(classes) == sorted(self.classes) and classes != self.classes
        return replace(
            self,
            classes=classes,
            reordered=f"its columns are in its own order, not the data's: {classes_text(classes)}" if reordered else "",
            reference_name=self.reference_name or (None if self.source else stored.model),
            preprocess=preprocess,
            scaling=stored.scaling,
            unread="" if preprocess else stored.unread,
            by_channel=stored.by_channel,
        )

    @property
    def label_offset(self) -> int | None:
        return None if self.preprocess is None else self.preprocess.label_offset


def load(
    path_or_name: str,
    *,
    model: str | None = None,
    classes: tuple[str, ...] = (),
    preprocess: Preprocess | None = None,
    trust_pickle: bool = False,
    weights: str | None = None,
    chosen: bool = False,
) -> Loaded:
    """Load a trained model from a file or by one of our names.

    model: the value of `--model` (`file.py:Class(args)`, `package.module:Class`, or a built-in name); needed when the
    file holds only weights. classes: of the logits' columns, usually the data's; without them the file must store them.
    preprocess: wins over the stored one; its layout is always NCHW afterwards, since that is what the module takes.
    trust_pickle: unpickle whole objects and load programs unchecked, which runs the file's code. weights: the key of
    the weights to load when a file holds several sets, such as raw and averaged ones. chosen: whether `classes` come
    from `--classes`, which wins over other names in the file.

    Raises CheckpointError when the file cannot be loaded as this model, UsageProblem when options do not apply to it,
    PackageMissing without torch.
    """
    path = _locate(path_or_name)
    with models.called_by_name(path_or_name, path):
        reference_name = model if model in models.names() else None
        source = parse_source(model) if model and not reference_name else None
        request = _Request(path, source, reference_name, classes, preprocess, trust_pickle, weights, chosen)
        kind = kind_of(path)
        title = kind_name(kind)
        if weights is not None and kind not in ("state", "safetensors"):
            raise UsageProblem(f"--weights {weights}: {path} is one whole model ({title}); leave --weights out")
        opened = _OPENERS.get(kind, _refuse_artifact)
        if opened is not _refuse_artifact:
            require("torch")
        with translated(
            lambda reason: CheckpointError(f"{path} is a damaged {title} ({reason}); save or copy it again")
        ):
            loaded = opened(request)
        digest = _digest(path, kind)
        first, otherwise, normalized = (
            tuple(replace(each, checkpoint_sha256=digest) for each in models_of)
            for models_of in ((loaded.model,), loaded.otherwise, loaded.normalized)
        )
        return replace(loaded, model=first[0], otherwise=otherwise, normalized=normalized)


def _locate(path_or_name: str) -> Path:
    if path_or_name not in models.names():
        path = Path(path_or_name)
        if path_or_name in models.ESTIMATORS and not path.exists():
            raise CheckpointError(
                f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name} --data SPEC "
                f"-o {path_or_name}.onnx"
            )
        similar_names = difflib.get_close_matches(path_or_name, models.names(), n=1)
        if similar_names and not path.exists():
            raise UsageProblem(
                f"'{path_or_name}' is neither a file nor a built-in model; did you mean {similar_names[0]}?"
            )
        return path
    weights = models.shipped_weights(path_or_name)
    if weights is None:
        raise CheckpointError(
            f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name} -o model.pt"
        )
    return weights


def _open_state(request: _Request) -> Loaded:
    from torch import nn

    refuse_quantized_pickle(request.path)
    payload = torch_files.read_payload(request.path, request.source, trusted=request.trust_pickle)
    if isinstance(payload, nn.Module):
        return _finish(request.agreed(Metadata()), payload, ("whole pickled model, trusted",), class_name(payload))
    stored = metadata_of(payload) if isinstance(payload, Mapping) else Metadata()
    if modules := modules_in(payload):
        key, notes = preferred(modules, request.weights, str(request.path))
        notes = ("whole pickled model, trusted", *notes)
        return _finish(request.agreed(stored), modules[key], notes, class_name(modules[key]))
    facts = payload if isinstance(payload, Mapping) else {}
    return _fill(request, stored, tensors_in(payload, str(request.path)), facts)


def _open_safetensors(request: _Request) -> Loaded:
    tensors, metadata = torch_files.read_safetensors(request.path)
    stored = metadata_facts(metadata, request.path)
    return _fill(request, stored, tensors_in(tensors, str(request.path)), read_values(metadata))


def _fill(request: _Request, stored: Metadata, tensors: dict[str, Tensor], facts: Mapping[Any, Any]) -> Loaded:
    """Load weights into the module that the request or the file names. facts: what the file holds beside them."""
    request = request.agreed(stored)
    name = str(request.path)
    if request.source:
        module, fitted = build_and_fit(request.source, facts, tensors, name, request.weights)
        return _finish(request, module, fitted.notes, class_name(module))
    if request.reference_name:
        module = build_reference(request.path, request.reference_name, len(request.classes), stored.options)
        return _finish(request, module, fit_state(module, tensors, name, request.weights).notes, class_name(module))
    raise OptionNeeded(f"{name} holds only weights; name the model's class with --model FILE.py:CLASS")


def _open_torchscript(request: _Request) -> Loaded:
    request = request.agreed(Metadata())
    script = torch_files.read_torchscript(request.path, trusted=request.trust_pickle)
    module, note = torch_files.from_torchscript(script, len(request.classes), request.label_offset)
    loaded = _finish(request, module, (note,), KIND_NAMES["torchscript"])
    refusal = torch_files.SCRIPT_REFUSAL if torch_files.is_script(module) else ""
    return replace(loaded, model=replace(loaded.model, refusal=refusal))


def _open_exported(request: _Request) -> Loaded:
    program, metadata = torch_files.read_program(request.path, trusted=request.trust_pickle)
    request = request.agreed(metadata_facts(metadata, request.path))
    module, note = torch_files.from_program(program, len(request.classes), request.label_offset)
    facts = our_facts(metadata, request.path)
    notes = (*map(str, facts.get("history", ())), note)
    loaded = _finish(request, module, notes, KIND_NAMES["exported"])
    ranges = tuple(Range(*ends) for ends in facts.get("input_ranges", ()))
    return replace(loaded, model=replace(loaded.model, origin_sha256=_origin(facts), input_ranges=ranges))


def _open_onnx(request: _Request) -> Loaded:
    from toolchain.checkpoint.onnx_torch import to_torch

    original = read_onnx(request.path, weights=False)
    metadata = {entry.key: entry.value for entry in original.metadata_props}
    request = request.agreed(metadata_facts(metadata, request.path))
    normal = normalise(request.path, len(request.classes), request.label_offset)
    estimator = estimator_in(original)
    module, refusal = (None, estimator.refusal) if estimator else to_torch(normal.proto)
    model = OnnxModel(
        **_facts(request, ("from ONNX", *normal.notes), KIND_NAMES["onnx"]),
        graph=normal.proto,
        original=original,
        module=module,
        refusal=refusal,
        estimator=estimator,
        origin_sha256=_origin(our_facts(metadata, request.path)),
    )
    width = normal.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return Loaded(model, request.preprocess is not None, width, request.scaling)


def _origin(facts: Mapping[str, Any]) -> str | None:
    """Return the digest of the checkpoint that a file says it was made from, None where it says nothing."""
    digest = facts.get("checkpoint_sha256")
    return digest if isinstance(digest, str) else None


def _refuse_artifact(request: _Request) -> Loaded:
    title = KIND_NAMES[kind_of(request.path)]
    raise CheckpointError(
        f"{request.path} is a {title} artifact, which cannot be pressed; give the checkpoint it was made from "
        "(to judge this file use evaluate, compare or profile)"
    )


_OPENERS: dict[str, Callable[[_Request], Loaded]] = {
    "state": _open_state,
    "safetensors": _open_safetensors,
    "torchscript": _open_torchscript,
    "exported": _open_exported,
    "onnx": _open_onnx,
}


def _finish(request: _Request, module: nn.Module, notes: tuple[str, ...], kind: str) -> Loaded:
    from toolchain.checkpoint.input_form import formed

    module = module.eval().float()
    notes = (*notes, *bake(module))
    free: list[FloatModel] = []
    normalized: list[FloatModel] = []
    for form in formed(module, str(request.path), request.by_channel):
        settled = settle_output(form.module, str(request.path), len(request.classes), request.label_offset)
        history = (*notes, *[form.note] * bool(form.note), *settled.notes)
        facts = _facts(replace(request, unread="") if form.normalized else request, history, kind)
        (normalized if form.normalized else free).append(TorchModel(**facts, module=settled.module))
    loaded = Loaded(free[0], request.preprocess is not None, settled.width, request.scaling, tuple(free[1:]))
    return replace(loaded, normalized=tuple(normalized), by_channel=request.by_channel is not None)


def _facts(request: _Request, history: tuple[str, ...], kind: str) -> dict[str, Any]:
    """Return the arguments of ModelFacts; `load` adds the digest."""
    name = request.path.stem
    while name.endswith(_FLOAT):
        name = name.removesuffix(_FLOAT)
    return {
        "name": name or request.path.stem,
        "kind": kind,
        "preprocess": replace(request.preprocess or Preprocess(), layout="NCHW"),
        "classes": request.classes,
        "checkpoint_sha256": "",
        "history": (*history, *filter(None, (request.reordered, request.unread))),
    }


def _digest(path: Path, kind: str) -> str:
    weight_files = catalog.get(kind).weight_files(path) if kind in catalog.FORMATS else ()
    if not weight_files:
        return file_sha256(path)
    return hashlib.sha256("".join(map(file_sha256, (path, *weight_files))).encode()).hexdigest()


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
    """Load a checkpoint and settle its preprocess, if necessary by a search on up to 1500 of the data's images.

    If the request names classes, only images of those are used. The model's classes are in the order of its columns,
    which may be another than the data's: train it on `data.in_order(model.classes)`.

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
    data = data and data.in_order(loaded.model.classes)
    if loaded.otherwise and data is None:
        raise CheckpointError(
            f"{path_or_name} takes 32x32 pixels, to which images may be padded or resized; labelled training images "
            "show which: give --data with a train split"
        )
    wants_search = not loaded.preprocess_known if request.search is None else request.search
    if not wants_search:
        if not loaded.preprocess_known:
            raise PreprocessUnknown(f"{path_or_name} {unknown_preprocess(loaded.scaling)}")
        return Settled(likelier(loaded.forms, _drawn(data, seed) if data else None), None)
    if data is None:
        raise PreprocessUnknown(
            f"{path_or_name} {unknown_preprocess(loaded.scaling)}; finding it needs labelled training images: "
            "give --data with a train split"
        )
    model, finding = found(loaded.forms, _drawn(data, seed), loaded.scaling)
    return Settled(replace(model, history=(*model.history, f"preprocess {finding.sentence()}")), finding)


def _drawn(data: Dataset, seed: int) -> tuple[Images, Labels]:
    chosen = np.random.default_rng(seed).permutation(len(data))[:SEARCH_IMAGES]
    return data.images[chosen], data.labels[chosen]
