"""FloatModel: the float model between checkpoint and export, in torch or ONNX, how it runs, which output is logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line
from targets.preprocess import Preprocess
from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError, PackageMissing, StageError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

    from toolchain.formats.onnx.estimators import EstimatorFacts

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_EMNIST_WIDTHS = {
    10: "digits or mnist",
    26: "letters",
    27: "letters with labels from 1",
    36: "digits and capital letters, byclass[0-9A-Z]",
    37: "digits and capital letters with labels from 1",
    47: "balanced or bymerge",
    62: "byclass",
}
"""Splits of EMNIST by the width of their logits: a wrong width is often that of another split."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a tensor's integers stand for."""

    low: float
    high: float


@dataclass(frozen=True)
class ModelFacts:
    """What every float model has, in torch or in ONNX.

    checkpoint_sha256: digest of the user's file. origin_sha256: digest of the checkpoint that this file says it was
    made from, as a pruned .pt2 does. history: one line for each stage that changed the model. input_ranges: ranges of
    the inputs of the layers with weights, in the order in which they run, where training learned them. kind: the class
    of the user's module, or the kind of file where it holds no class.
    """

    name: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    checkpoint_sha256: str
    _: KW_ONLY
    history: tuple[str, ...] = ()
    origin_sha256: str | None = None
    input_ranges: tuple[Range, ...] = ()
    kind: str = ""

    @property
    def root_sha256(self) -> str:
        """Return the digest of the checkpoint that this model was first made from."""
        return self.origin_sha256 or self.checkpoint_sha256

    def with_module(self, module: nn.Module) -> TorchModel:
        """Return the model with `module` as its layers; a model that came as ONNX is in torch from then on."""
        facts = {field.name: getattr(self, field.name) for field in fields(ModelFacts)}
        return TorchModel(**facts, module=module)


@dataclass(frozen=True)
class TorchModel(ModelFacts):
    """A model in torch.

    module: eval mode, float32 [N, 1, 28, 28] to logits [N, columns]. refusal: why the module can be run but neither
    changed nor converted, such as TorchScript whose control flow depends on the image; empty for all others.
    """

    module: nn.Module
    _: KW_ONLY
    refusal: str = ""

    def torch_module(self, stage: str) -> nn.Module:
        """Return the module for `stage`, which changes or converts it; raises as `_refused` says."""
        if self.refusal:
            raise _refused(stage, self.refusal)
        return self.module


@dataclass(frozen=True)
class OnnxModel(ModelFacts):
    """A model that came as ONNX and is exported from that graph.

    graph: the normalised graph (`onnx_normal`), to be read only. original: the user's graph, without its weights.
    module: the same layers in torch (`onnx_torch`), None where they could not be brought back. refusal: why not.
    estimator: the forest or support vector machine that the graph holds in place of layers, or None.
    """

    graph: ModelProto
    original: ModelProto
    module: nn.Module | None = None
    _: KW_ONLY
    refusal: str = ""
    estimator: EstimatorFacts | None = None

    def torch_module(self, stage: str) -> nn.Module:
        """Return the torch module for `stage`, which changes or converts it; raises as `_refused` says."""
        if self.estimator:
            raise StageError(f"{stage} is not possible with {self.name}: {self.estimator.refusal}")
        if self.module is None:
            raise _refused(stage, self.refusal)
        return self.module


FloatModel = TorchModel | OnnxModel


def _refused(stage: str, reason: str) -> StageError | PackageMissing:
    """Return the error of a stage that needs torch layers: PackageMissing where onnx2torch is not installed."""
    family = StageError if find_spec("onnx2torch") else PackageMissing
    return family(f"{stage} needs the model in torch: {reason}")


def forward(model: FloatModel) -> Forward:
    """Return a function from float32 [N, 1, 28, 28], already preprocessed, to all logit columns float32 [N, width].

    The function raises StageError where the model does not take N images at once.
    """
    if model.module is not None:
        return _torch_forward(model.module, model.name)
    assert isinstance(model, OnnxModel), "a TorchModel has a module"
    from toolchain.checkpoint.onnx_graph import answers, open_session

    session = open_session(model.graph)
    return lambda images: answers(session, images)["logits"]


def _torch_forward(module: nn.Module, name: str) -> Forward:
    import torch

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with torch.no_grad():
                logits: NDArray[np.float32] = module(torch.from_numpy(images)).float().numpy()
        except Exception as error:
            # A user's forward may raise anything.
            raise StageError(
                f"{name} does not take {len(images)} images at once ({first_line(error)}); "
                "give a model whose batch is free"
            ) from error
        return logits

    return run


class SettledOutput(NamedTuple):
    """A module that returns only logits [N, width], and notes on what was chosen for that."""

    module: nn.Module
    width: int
    notes: tuple[str, ...]


def settle_output(module: nn.Module, name: str, classes: int, label_offset: int | None) -> SettledOutput:
    """Run a blank image and a random one to find the module's logits, and wrap it where it returns anything else too.

    Raises CheckpointError when the module does not take float32 [2, 1, 28, 28], when its logits are not finite, and as
    `choose_output` does.
    """
    import torch

    images = torch.zeros(2, 1, 28, 28)
    images[1] = torch.rand(images[1].shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            outputs = _named_tensors(module(images))
    except Exception as error:  # a user's forward can raise anything
        raise CheckpointError(
            f"{name} does not take float32 [N, 1, 28, 28] with N = 2 ({first_line(error)}); "
            f"give a model for 28x28 images of one channel, with a batch axis that is not fixed"
        ) from error
    answers = {key: value.detach().float().numpy() for key, value in outputs.items()}
    chosen = choose_output(answers, name, classes, label_offset, batch=len(images))
    logits = outputs[chosen.key]
    width = logits.shape[1]
    if not torch.isfinite(logits).all():
        raise CheckpointError(f"{name}: NaN or infinity for blank images; the weights are broken, train or save again")
    notes = []
    if len(outputs) > 1 or chosen.key:
        notes.append(chosen.note(f"[N, {width}]", len(outputs)))
        module = _chosen_output(module, chosen.key)
    if torch.allclose(logits.sum(1), torch.ones(2, dtype=logits.dtype), atol=1e-4) and (logits >= 0).all():
        notes.append("the answers sum to 1: the model ends in a softmax, kept as it is")
    return SettledOutput(module, width, tuple(notes))


class LogitsOutput(NamedTuple):
    """The key of the output that holds the logits, and those of others of its width, which are made of it."""

    key: str
    made_of_it: tuple[str, ...] = ()

    def note(self, shape: str, outputs: int) -> str:
        """Return what was chosen out of so many outputs, for the file's history."""
        others = f", of which {listing(self.made_of_it)} is made" if self.made_of_it else ""
        return f"output {self.key} {shape} of {outputs} taken as the logits{others}"


def choose_output(
    answers: Mapping[str, NDArray[Any]], name: str, classes: int, label_offset: int | None, *, batch: int
) -> LogitsOutput:
    """Return the output that can hold the logits of `batch` images; of several the one that the others are made of.

    answers: what the outputs hold for these images. label_offset None: not known yet, so the logits may have one column
    more than there are classes, as in models that keep EMNIST's labels from 1. Raises CheckpointError when no output
    can hold the logits, or when several can.
    """
    for width in (classes + label_offset,) if label_offset else (classes, classes + 1):
        fitting = {key: answer for key, answer in answers.items() if answer.shape == (batch, width)}
        for source, logits in fitting.items():
            others = tuple(key for key in fitting if key != source)
            if all(_is_made_of(logits, fitting[key]) for key in others):
                return LogitsOutput(source, others)
        if fitting:
            raise CheckpointError(
                f"{name}: outputs {listing(fitting)} all have width {width}, and none is the softmax of another; "
                "return the logits alone"
            )
    match [answer.shape for answer in answers.values()]:
        case [(rows, width)] if rows == batch:
            guess = f"; {width} is the width of {_EMNIST_WIDTHS[width]}" if width in _EMNIST_WIDTHS else ""
            shift = f" from label offset {label_offset} on" if label_offset else ""
            raise CheckpointError(
                f"{name}: it answers {width} columns, but there are {classes} classes{shift}{guess}; give the --data "
                "it was trained on, or choose its classes with --classes"
            )
    shown = listing(f"{key or 'output'} {list(answer.shape)}" for key, answer in answers.items()) or "nothing"
    raise CheckpointError(
        f"{name}: for {batch} images it answers {shown}, none of them [{batch}, {classes}]; return logits [N, classes]"
    )


def _is_made_of(logits: NDArray[Any], answer: NDArray[Any]) -> bool:
    """Return whether an output is these logits themselves, or their softmax, log-softmax or sigmoid."""
    from scipy.special import expit, log_softmax, softmax

    forms = (np.asarray, partial(softmax, axis=1), partial(log_softmax, axis=1), expit)
    return any(np.allclose(answer, form(logits), rtol=1e-3, atol=1e-5) for form in forms)


def _named_tensors(answer: object) -> dict[str, Tensor]:
    """Return the tensors of an answer by their key or index in it, a bare tensor by an empty string."""
    from torch import Tensor

    if isinstance(answer, Tensor):
        return {"": answer}
    if isinstance(answer, (tuple, list)):
        answer = dict(enumerate(answer))
    items = answer.items() if isinstance(answer, Mapping) else ()
    return {str(key): value for key, value in items if isinstance(value, Tensor)}


def _chosen_output(module: nn.Module, key: str) -> nn.Module:
    from torch import nn

    class ChosenOutput(nn.Module):
        """The model with one of its outputs."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return _named_tensors(self.model(image))[key]

    return ChosenOutput(module).eval()
