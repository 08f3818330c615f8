"""FloatModel: what the press works on between the checkpoint and the export."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from targets.preprocess import Preprocess
from toolchain.core.errors import PackageMissing, StageError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a tensor's integers stand for."""

    low: float
    high: float


@dataclass(frozen=True)
class FloatModel:
    """A float model and how to feed it.

    module: eval mode, float32 [N, 1, 28, 28] to logits [N, columns]; None when the model came as ONNX and could not
    be brought back to torch. refusal: why there is no module, or why it can be run but not taken apart, as TorchScript
    whose control flow depends on the image; empty for all others. onnx: the file it came from, when it came as ONNX.
    checkpoint_sha256: digest of the file the user gave. origin_sha256: of the checkpoint that this file says it was
    made from in turn, as a pruned .pt2 does. history: one line a stage that changed it. input_ranges: of what enters
    each layer with weights, in the order in which they run, where training learned them. kind: the class of the module
    that the user gave, or the kind of file that it came in where that holds none.
    """

    name: str
    module: nn.Module | None
    preprocess: Preprocess
    classes: tuple[str, ...]
    checkpoint_sha256: str
    history: tuple[str, ...] = ()
    onnx: Path | None = None
    refusal: str = ""
    origin_sha256: str | None = None
    input_ranges: tuple[Range, ...] = ()
    kind: str = ""

    @property
    def root_sha256(self) -> str:
        """Return the digest of the checkpoint that its line began with."""
        return self.origin_sha256 or self.checkpoint_sha256

    def torch_module(self, stage: str) -> nn.Module:
        """Return the module to take apart or convert, as `stage` does.

        Raises StageError saying why the stage is refused, PackageMissing for want of onnx2torch.
        """
        if self.module is None or self.refusal:
            family = StageError if find_spec("onnx2torch") else PackageMissing
            raise family(f"{stage} needs the model in torch: {self.refusal}")
        return self.module
