"""Load a checkpoint file, or a built-in model by its name, as a FloatModel."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import file_sha256
from targets.errors import translated
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.checkpoint.computed_weights import bake
from toolchain.checkpoint.float_model import FloatModel, OnnxModel, TorchModel
from toolchain.checkpoint.kinds import KIND_NAMES, kind_of
from toolchain.checkpoint.logits_output import settle_output
from toolchain.checkpoint.metadata import (
    Metadata,
    agreed_classes,
    build_reference,
    history,
    input_ranges,
    metadata_facts,
    metadata_of,
    origin,
)
from toolchain.checkpoint.source import ModelSource, build_from, import_source, parse_source
from toolchain.checkpoint.state import class_name, fit_state, modules_in, preferred, tensors_in
from toolchain.checkpoint.torch_files import private_copy
from toolchain.core.errors import CheckpointError, UsageProblem
from toolchain.formats import catalog

if TYPE_CHECKING:
    from torch import nn

_FLOAT = ".float"
"""What a press writes between a model's name and the suffix; taken off here, or a second press would add it again."""


@dataclass(frozen=True)
class Loaded:
    """A FloatModel, and whether its preprocess was given or stored; if not, the model holds a default to be replaced.

    width: columns of the model's logits, which can be one more than its classes. scaling: mean and std that the file
    stores without the rest of the preprocess.
    """

    model: FloatModel
    preprocess_known: bool
    width: int
    scaling: Preprocess | None = None

    def with_preprocess(self, preprocess: Preprocess, note: str) -> FloatModel:
        """Return the model with this preprocess, and `note` added to its history."""
        return replace(self.model, preprocess=preprocess, history=(*self.model.history, note))


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

    def agreed(self, stored: Metadata) -> _Request:
        """Fill in from the file what the caller left open; the caller's values win, except for the data's classes."""
        classes = agreed_classes(self.classes, stored.classes, self.path, chosen=self.chosen)
        reference_name = self.reference_name or (None if self.source else stored.model)
        preprocess = self.preprocess or stored.preprocess
        unread = "" if preprocess else stored.unread
        return replace(
            self,
            classes=classes,
            reference_name=reference_name,
            preprocess=preprocess,
            scaling=stored.scaling,
            unread=unread,
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

    Raises CheckpointError when the file cannot be loaded as this model, UsageProblem when options do not apply to it.
    """
    path = _locate(path_or_name)
    reference_name = model if model in models.names() else None
    source = parse_source(model) if model and not reference_name else None
    request = _Request(path, source, reference_name, classes, preprocess, trust_pickle, weights, chosen)
    kind = kind_of(path)
    if weights is not None and kind not in ("state", "safetensors"):
        raise UsageProblem(f"--weights {weights}: {path} is one whole model ({KIND_NAMES[kind]}); leave --weights out")
    kind_name = KIND_NAMES[kind]
    with translated(
        lambda reason: CheckpointError(f"{path} is a damaged {kind_name} ({reason}); save or copy it again")
    ):
        loaded = _OPENERS.get(kind, _refuse_artifact)(request)
    return replace(loaded, model=replace(loaded.model, checkpoint_sha256=_digest(path, kind)))


def _locate(path_or_name: str) -> Path:
    if path_or_name not in models.names():
        path = Path(path_or_name)
        similar_names = difflib.get_close_matches(path_or_name, models.names(), n=1)
        if similar_names and not path.exists():
            raise UsageProblem(
                f"'{path_or_name}' is neither a file nor a built-in model; did you mean {similar_names[0]}?"
            )
        return path
    weights = models.shipped_weights(path_or_name)
    if weights is None:
        raise CheckpointError(
            f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name} --out model.pt"
        )
    return weights


def _open_state(request: _Request) -> Loaded:
    from torch import nn

    from toolchain.checkpoint.pickled import refuse_quantized
    from toolchain.checkpoint.torch_files import read_pickle, read_weights

    refuse_quantized(request.path)
    if request.trust_pickle:
        payload = read_pickle(request.path, import_source(request.source) if request.source else None)
    else:
        payload = read_weights(request.path)
    if isinstance(payload, nn.Module):
        return _finish(request.agreed(Metadata()), payload, ("whole pickled model, trusted",), class_name(payload))
    facts = metadata_of(payload) if isinstance(payload, Mapping) else Metadata()
    if modules := modules_in(payload):
        key, notes = preferred(modules, request.weights, str(request.path))
        return _finish(
            request.agreed(facts), modules[key], ("whole pickled model, trusted", *notes), class_name(modules[key])
        )
    return _fill(request, facts, tensors_in(payload, str(request.path)))


def _open_safetensors(request: _Request) -> Loaded:
    from safetensors import SafetensorError, safe_open

    try:
        with private_copy(request.path) as copy, safe_open(copy, framework="pt") as file:
            facts = metadata_facts(file.metadata(), request.path)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(
            f"{request.path} is a damaged .safetensors file ({error}); save or copy it again"
        ) from error
    return _fill(request, facts, tensors_in(tensors, str(request.path)))


def _fill(request: _Request, stored: Metadata, tensors: dict[str, Any]) -> Loaded:
    request = request.agreed(stored)
    if request.source:
        module = build_from(request.source)
    elif request.reference_name:
        module = build_reference(request.path, request.reference_name, len(request.classes), stored.options)
    else:
        raise CheckpointError(f"{request.path} holds only weights; name the model's class with --model FILE.py:CLASS")
    kind = class_name(module)
    return _finish(request, module, fit_state(module, tensors, str(request.path), request.weights).notes, kind)


def _open_torchscript(request: _Request) -> Loaded:
    from toolchain.checkpoint.compiled import SCRIPT_REFUSAL, from_torchscript, is_script

    request = request.agreed(Metadata())
    module, note = from_torchscript(
        request.path, len(request.classes), request.label_offset, trusted=request.trust_pickle
    )
    loaded = _finish(request, module, (note,), KIND_NAMES["torchscript"])
    return replace(loaded, model=replace(loaded.model, refusal=SCRIPT_REFUSAL)) if is_script(module) else loaded


def _open_exported(request: _Request) -> Loaded:
    from toolchain.checkpoint.compiled import from_program
    from toolchain.checkpoint.torch_files import read_program

    program, extra = read_program(request.path, trusted=request.trust_pickle)
    request = request.agreed(metadata_facts(extra, request.path))
    module, note = from_program(program, len(request.classes), request.label_offset)
    loaded = _finish(request, module, (*history(extra), note), KIND_NAMES["exported"])
    return replace(loaded, model=replace(loaded.model, origin_sha256=origin(extra), input_ranges=input_ranges(extra)))


def _open_onnx(request: _Request) -> Loaded:
    from toolchain.checkpoint.onnx_normal import normalise
    from toolchain.checkpoint.onnx_torch import to_torch
    from toolchain.formats.onnx.file import read_onnx

    metadata = {entry.key: entry.value for entry in read_onnx(request.path, weights=False).metadata_props}
    request = request.agreed(metadata_facts(metadata, request.path))
    normal = normalise(request.path, len(request.classes), request.label_offset)
    module, refusal = to_torch(normal.proto)
    width = normal.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    facts = _facts(request, ("from ONNX", *normal.notes), KIND_NAMES["onnx"])
    model = OnnxModel(
        **facts,
        graph=normal.proto,
        path=request.path,
        module=module,
        refusal=refusal,
        origin_sha256=origin(metadata),
    )
    return Loaded(model, request.preprocess is not None, width, request.scaling)


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
    import torch

    module = module.eval().float()
    notes = (*notes, *bake(module))
    module, output_notes = settle_output(
        module, str(request.path), classes=len(request.classes), label_offset=request.label_offset
    )
    with torch.no_grad():
        width = module(torch.zeros(2, 1, 28, 28)).shape[1]
    model = TorchModel(**_facts(request, (*notes, *output_notes), kind), module=module)
    return Loaded(model, request.preprocess is not None, width, request.scaling)


def _facts(request: _Request, history: tuple[str, ...], kind: str) -> dict[str, Any]:
    """Return the constructor arguments that all kinds of FloatModel share."""
    name = request.path.stem
    while name.endswith(_FLOAT):
        name = name.removesuffix(_FLOAT)
    return {
        "name": name or request.path.stem,
        "kind": kind,
        "preprocess": replace(request.preprocess or Preprocess(), layout="NCHW"),
        "classes": request.classes,
        "checkpoint_sha256": "",
        "history": (*history, *filter(None, (request.unread,))),
    }


def _digest(path: Path, kind: str) -> str:
    weight_files = catalog.get(kind).weight_files(path) if kind in catalog.FORMATS else ()
    if not weight_files:
        return file_sha256(path)
    return hashlib.sha256("".join(map(file_sha256, (path, *weight_files))).encode()).hexdigest()
