"""A user's file, or one of our model names -> FloatModel."""

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
from toolchain.checkpoint.kinds import KIND_WORDS, kind_of
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
"""What a press puts between the model's name and the suffix; it does so again when such a file is pressed."""


@dataclass(frozen=True)
class Loaded:
    """A FloatModel, and whether its preprocess was given or stored; when not, it holds a plain one to be replaced.

    width: columns that the model answers, which can be one more than its classes. scaling: mean and std that the file
    names without saying how it wants images otherwise.
    """

    model: FloatModel
    preprocess_known: bool
    width: int
    scaling: Preprocess | None = None

    def with_preprocess(self, preprocess: Preprocess, note: str) -> FloatModel:
        """Return the model with the preprocess that was found for it, and a line about how."""
        return replace(self.model, preprocess=preprocess, history=(*self.model.history, note))


@dataclass(frozen=True)
class _Wanted:
    path: Path
    source: ModelSource | None
    ours: str | None
    classes: tuple[str, ...]
    preprocess: Preprocess | None
    trust_pickle: bool
    weights: str | None
    chosen: bool = False
    scaling: Preprocess | None = None
    unread: str = ""

    def agreed(self, stored: Metadata) -> _Wanted:
        """Join what was asked for with what the file says; what was asked for wins, except for the data's classes."""
        classes = agreed_classes(self.classes, stored.classes, self.path, chosen=self.chosen)
        ours = self.ours or (None if self.source else stored.model)
        preprocess = self.preprocess or stored.preprocess
        unread = "" if preprocess else stored.unread
        return replace(self, classes=classes, ours=ours, preprocess=preprocess, scaling=stored.scaling, unread=unread)

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

    model: the words of `--model` (`file.py:Class(args)`, `package.module:Class`, or one of our names); needed for
    weights alone. classes: what the columns stand for, usually the data's; without them the file must say. preprocess:
    wins over what the file says; its layout is always NCHW afterwards, since that is what the module takes.
    trust_pickle: unpickle whole objects and load programs unchecked, which runs the file's code. weights: the key of
    the weights to take, of a file that holds several, such as raw and averaged ones. chosen: the classes are those of
    `--classes`, which win over other names in the file.

    Raises CheckpointError when the file is not the model it is said to be, UsageProblem on words that cannot be meant.
    """
    path = _locate(path_or_name)
    ours = model if model in models.names() else None
    source = parse_source(model) if model and not ours else None
    wanted = _Wanted(path, source, ours, classes, preprocess, trust_pickle, weights, chosen)
    kind = kind_of(path)
    if weights is not None and kind not in ("state", "safetensors"):
        raise UsageProblem(f"--weights {weights}: {path} is one whole model ({KIND_WORDS[kind]}); leave --weights out")
    words = KIND_WORDS[kind]
    with translated(lambda reason: CheckpointError(f"{path} is a damaged {words} ({reason}); save or copy it again")):
        loaded = _OPENERS.get(kind, _refuse_artifact)(wanted)
    return replace(loaded, model=replace(loaded.model, checkpoint_sha256=_digest(path, kind)))


def _locate(path_or_name: str) -> Path:
    if path_or_name not in models.names():
        path = Path(path_or_name)
        near = difflib.get_close_matches(path_or_name, models.names(), n=1)
        if near and not path.exists():
            raise UsageProblem(f"'{path_or_name}' is neither a file nor a built-in model; did you mean {near[0]}?")
        return path
    weights = models.shipped_weights(path_or_name)
    if weights is None:
        raise CheckpointError(
            f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name} --out model.pt"
        )
    return weights


def _open_state(wanted: _Wanted) -> Loaded:
    from torch import nn

    from toolchain.checkpoint.pickled import refuse_quantized
    from toolchain.checkpoint.torch_files import read_pickle, read_weights

    refuse_quantized(wanted.path)
    if wanted.trust_pickle:
        payload = read_pickle(wanted.path, import_source(wanted.source) if wanted.source else None)
    else:
        payload = read_weights(wanted.path)
    if isinstance(payload, nn.Module):
        return _finish(wanted.agreed(Metadata()), payload, ("whole pickled model, trusted",), class_name(payload))
    facts = metadata_of(payload) if isinstance(payload, Mapping) else Metadata()
    if whole := modules_in(payload):
        key, notes = preferred(whole, wanted.weights, str(wanted.path))
        return _finish(
            wanted.agreed(facts), whole[key], ("whole pickled model, trusted", *notes), class_name(whole[key])
        )
    return _fill(wanted, facts, tensors_in(payload, str(wanted.path)))


def _open_safetensors(wanted: _Wanted) -> Loaded:
    from safetensors import SafetensorError, safe_open

    try:
        with private_copy(wanted.path) as copy, safe_open(copy, framework="pt") as file:
            facts = metadata_facts(file.metadata(), wanted.path)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise CheckpointError(
            f"{wanted.path} is a damaged .safetensors file ({error}); save or copy it again"
        ) from error
    return _fill(wanted, facts, tensors_in(tensors, str(wanted.path)))


def _fill(wanted: _Wanted, stored: Metadata, tensors: dict[str, Any]) -> Loaded:
    wanted = wanted.agreed(stored)
    if wanted.source:
        module = build_from(wanted.source)
    elif wanted.ours:
        module = build_reference(wanted.path, wanted.ours, len(wanted.classes), stored.options)
    else:
        raise CheckpointError(f"{wanted.path} holds weights alone; say whose they are, --model FILE.py:CLASS")
    kind = class_name(module)
    return _finish(wanted, module, fit_state(module, tensors, str(wanted.path), wanted.weights).notes, kind)


def _open_torchscript(wanted: _Wanted) -> Loaded:
    from toolchain.checkpoint.compiled import SCRIPT_REFUSAL, from_torchscript, is_script

    wanted = wanted.agreed(Metadata())
    module, note = from_torchscript(wanted.path, len(wanted.classes), wanted.label_offset, trusted=wanted.trust_pickle)
    loaded = _finish(wanted, module, (note,), KIND_WORDS["torchscript"])
    return replace(loaded, model=replace(loaded.model, refusal=SCRIPT_REFUSAL)) if is_script(module) else loaded


def _open_exported(wanted: _Wanted) -> Loaded:
    from toolchain.checkpoint.compiled import from_program
    from toolchain.checkpoint.torch_files import read_program

    program, extra = read_program(wanted.path, trusted=wanted.trust_pickle)
    wanted = wanted.agreed(metadata_facts(extra, wanted.path))
    module, note = from_program(program, len(wanted.classes), wanted.label_offset)
    loaded = _finish(wanted, module, (*history(extra), note), KIND_WORDS["exported"])
    return replace(loaded, model=replace(loaded.model, origin_sha256=origin(extra), input_ranges=input_ranges(extra)))


def _open_onnx(wanted: _Wanted) -> Loaded:
    from toolchain.checkpoint.onnx_normal import normalise
    from toolchain.checkpoint.onnx_torch import to_torch
    from toolchain.formats.onnx.read import read_onnx

    metadata = {entry.key: entry.value for entry in read_onnx(wanted.path, weights=False).metadata_props}
    wanted = wanted.agreed(metadata_facts(metadata, wanted.path))
    normal = normalise(wanted.path, len(wanted.classes), wanted.label_offset)
    module, refusal = to_torch(normal.proto)
    width = normal.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    facts = _facts(wanted, ("from ONNX", *normal.notes), KIND_WORDS["onnx"])
    model = OnnxModel(
        **facts,
        graph=normal.proto,
        path=wanted.path,
        module=module,
        refusal=refusal,
        origin_sha256=origin(metadata),
    )
    return Loaded(model, wanted.preprocess is not None, width, wanted.scaling)


def _refuse_artifact(wanted: _Wanted) -> Loaded:
    title = KIND_WORDS[kind_of(wanted.path)]
    raise CheckpointError(
        f"{wanted.path} is a {title} artifact, which cannot be pressed; give the checkpoint it was made from "
        "(to judge this file use evaluate, compare or profile)"
    )


_OPENERS: dict[str, Callable[[_Wanted], Loaded]] = {
    "state": _open_state,
    "safetensors": _open_safetensors,
    "torchscript": _open_torchscript,
    "exported": _open_exported,
    "onnx": _open_onnx,
}


def _finish(wanted: _Wanted, module: nn.Module, notes: tuple[str, ...], kind: str) -> Loaded:
    import torch

    module = module.eval().float()
    notes = (*notes, *bake(module))
    module, chosen = settle_output(
        module, str(wanted.path), classes=len(wanted.classes), label_offset=wanted.label_offset
    )
    with torch.no_grad():
        width = module(torch.zeros(2, 1, 28, 28)).shape[1]
    model = TorchModel(**_facts(wanted, (*notes, *chosen), kind), module=module)
    return Loaded(model, wanted.preprocess is not None, width, wanted.scaling)


def _facts(wanted: _Wanted, history: tuple[str, ...], kind: str) -> dict[str, Any]:
    """Return the arguments that every FloatModel takes."""
    name = wanted.path.stem
    while name.endswith(_FLOAT):
        name = name.removesuffix(_FLOAT)
    return {
        "name": name or wanted.path.stem,
        "kind": kind,
        "preprocess": replace(wanted.preprocess or Preprocess(), layout="NCHW"),
        "classes": wanted.classes,
        "checkpoint_sha256": "",
        "history": (*history, *filter(None, (wanted.unread,))),
    }


def _digest(path: Path, kind: str) -> str:
    beside = catalog.get(kind).weight_files(path) if kind in catalog.FORMATS else ()
    if not beside:
        return file_sha256(path)
    return hashlib.sha256("".join(map(file_sha256, (path, *beside))).encode()).hexdigest()
