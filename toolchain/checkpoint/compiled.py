"""TorchScript and torch.export programs -> modules made of layers.

Both hold a graph without layers, which can be run but not pruned, and TorchScript cannot be exported again. So they go
through ONNX, which gives torch's own layers back; where that fails, the program runs as it is.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.onnx_run import TOLERANCE, differs, seeded_images
from toolchain.checkpoint.torch_files import first_line, read_torchscript
from toolchain.checkpoint.trial import settle_output
from toolchain.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


def from_torchscript(path: Path, classes: int, label_offset: int | None) -> tuple[nn.Module, str]:
    """Return a module with the file's answers, made of layers where possible, and a note saying which."""
    script = read_torchscript(path)

    def export(target: Path) -> None:
        import torch

        axes = {"image": {0: "batch"}}
        blank = (torch.zeros(2, 1, 28, 28),)
        torch.onnx.export(
            script, blank, str(target), dynamo=False, input_names=["image"], dynamic_axes=axes, opset_version=17
        )

    return _layered(script, export, "TorchScript", classes, label_offset)


def from_program(program: ExportedProgram, classes: int, label_offset: int | None) -> tuple[nn.Module, str]:
    """Return a module with the program's answers, made of layers where possible, and a note saying which."""
    import torch

    def export(target: Path) -> None:
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
        if exported is None:
            raise CheckpointError("torch.onnx.export gave nothing")
        exported.save(str(target))

    return _layered(_as_module(program), export, "torch.export program", classes, label_offset)


def _layered(
    whole: nn.Module, export: Callable[[Path], None], kind: str, classes: int, label_offset: int | None
) -> tuple[nn.Module, str]:
    with tempfile.TemporaryDirectory(prefix="glyphpress-") as folder:
        target = Path(folder) / "program.onnx"
        try:
            with _quiet():
                export(target)
            module = _through_onnx(target, classes, label_offset)
        except Exception as error:  # noqa: BLE001 (exporters let anything out; the program still runs as it is)
            return whole, f"{kind}, run as it is: no layers to prune ({first_line(error)})"
    if not _same(whole, module, classes, label_offset):
        return whole, f"{kind}, run as it is: no layers to prune (through ONNX it answers differently)"
    return module, f"{kind}, brought back to layers through ONNX"


def _through_onnx(target: Path, classes: int, label_offset: int | None) -> nn.Module:
    from toolchain.checkpoint.onnx_normal import normalise
    from toolchain.checkpoint.onnx_torch import to_torch

    module, refusal = to_torch(normalise(target, classes, label_offset, keep_softmax=True).proto)
    if module is None:
        raise CheckpointError(refusal)
    return module


def _same(whole: nn.Module, module: nn.Module, classes: int, label_offset: int | None) -> bool:
    """Say whether both answer alike; a program with a fixed batch, which cannot be tried, was compared as ONNX."""
    import torch

    images = torch.from_numpy(seeded_images())
    try:
        whole, _ = settle_output(whole, "program", classes=classes, label_offset=label_offset)
    except CheckpointError:
        return True
    with torch.no_grad():
        return differs(whole(images).numpy(), module(images).numpy()) < TOLERANCE


def _as_module(program: Any) -> nn.Module:
    from torch import nn

    class Exported(nn.Module):
        """A torch.export program; what it does in training was settled when it was exported."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def train(self, mode: bool = True) -> Exported:  # noqa: ARG002 (the signature is torch's)
            # A program's own train() raises.
            return self

        def forward(self, image: Tensor) -> Any:
            return self.program(image)

    return Exported()


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
