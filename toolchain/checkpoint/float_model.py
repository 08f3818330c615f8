"""FloatModel: the float model between the checkpoint and the export, in torch or in ONNX, and how to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line
from targets.preprocess import Preprocess
from toolchain.core.errors import PackageMissing, StageError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a tensor's integers stand for."""

    low: float
    high: float


@dataclass(frozen=True)
class ModelFacts:
    """What is known of every float model, whatever holds its layers.

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
    changed nor converted, as TorchScript whose control flow depends on the image; empty for all others.
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

    graph: the normalised graph (`onnx_normal`), to be read only. path: the user's file. module: the same layers in
    torch (`onnx_torch`), None where they could not be brought back. refusal: why not.
    """

    graph: ModelProto
    path: Path
    module: nn.Module | None = None
    _: KW_ONLY
    refusal: str = ""

    def torch_module(self, stage: str) -> nn.Module:
        """Return the torch module for `stage`, which changes or converts it; raises as `_refused` says."""
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
    from toolchain.checkpoint.onnx_run import answers, open_session

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
