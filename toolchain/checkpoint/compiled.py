"""Convert TorchScript and torch.export programs to modules made of layers.

Both hold a graph without layers, which can be run but not pruned, and TorchScript cannot be exported again. So they are
exported to ONNX and rebuilt from it with torch's own layers; where that fails, the program is used unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.logits_output import settle_output
from toolchain.checkpoint.onnx_run import TOLERANCE, largest_difference, seeded_images
from toolchain.checkpoint.torch_files import read_torchscript
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


SCRIPT_REFUSAL = "TorchScript whose steps depend on the image cannot be converted to layers; give the checkpoint"


def is_script(module: nn.Module) -> bool:
    """Return whether a module is TorchScript or wraps it."""
    from torch.jit import ScriptModule

    return any(isinstance(part, ScriptModule) for part in module.modules())


def export_script(script: nn.Module, target: Path) -> None:
    """Write TorchScript as ONNX of opset 17, with torch's older exporter, since the newer one takes no scripts."""
    import torch

    axes, blank = {"image": {0: "batch"}}, (torch.zeros(2, 1, 28, 28),)
    torch.onnx.export(
        script, blank, str(target), dynamo=False, input_names=["image"], dynamic_axes=axes, opset_version=17
    )


def from_torchscript(
    path: Path, classes: int, label_offset: int | None, *, trusted: bool = False
) -> tuple[nn.Module, str]:
    """Return a module with the file's answers, made of layers where possible, and a note on whether it is.

    Raises CheckpointError as `read_torchscript` does.
    """
    script = read_torchscript(path, trusted=trusted)

    module, note = _with_layers(script, partial(export_script, script), "TorchScript", classes, label_offset)
    if module is script and (program := _as_program(script)) and _same_answers(script, program, classes, label_offset):
        return program, note
    return module, note


def _as_program(script: nn.Module) -> nn.Module | None:
    """Return a script's graph as a torch.export program, which every exporter takes; None where torch cannot."""
    import torch

    try:
        with output_to_log():
            from torch._export.converter import TS2EPConverter

            program = TS2EPConverter(script, (torch.zeros(2, 1, 28, 28),)).convert()  # type: ignore[arg-type]  # a script
        return _as_module(program)
    except Exception:  # noqa: BLE001 (a torch internal may raise anything; the script still runs as it is)
        return None


def from_program(program: ExportedProgram, classes: int, label_offset: int | None) -> tuple[nn.Module, str]:
    """Return a module with the program's answers, made of layers where possible, and a note on whether it is."""
    import torch

    def export(target: Path) -> None:
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
        if exported is None:
            raise CheckpointError("torch.onnx.export gave nothing")
        exported.save(str(target))

    return _with_layers(_as_module(program), export, "torch.export program", classes, label_offset)


def _with_layers(
    original: nn.Module, export: Callable[[Path], None], kind: str, classes: int, label_offset: int | None
) -> tuple[nn.Module, str]:
    with tempfile.TemporaryDirectory(prefix="glyphpress-") as folder:
        target = Path(folder) / "program.onnx"
        try:
            with output_to_log():
                export(target)
            module = _through_onnx(target, classes, label_offset)
        except Exception as error:  # noqa: BLE001 (exporters may raise anything; the program still runs as it is)
            return original, f"{kind}, run as it is: no layers to prune ({first_line(error)})"
    if not _same_answers(original, module, classes, label_offset):
        return original, f"{kind}, run as it is: no layers to prune (through ONNX it answers differently)"
    return module, f"{kind}, brought back to layers through ONNX"


def _through_onnx(target: Path, classes: int, label_offset: int | None) -> nn.Module:
    from toolchain.checkpoint.onnx_normal import normalise
    from toolchain.checkpoint.onnx_torch import to_torch

    module, refusal = to_torch(normalise(target, classes, label_offset, keep_softmax=True).proto)
    if module is None:
        raise CheckpointError(refusal)
    return module


def _same_answers(original: nn.Module, module: nn.Module, classes: int, label_offset: int | None) -> bool:
    """Return whether both answer alike; a program of fixed batch size cannot run here and was compared as ONNX."""
    import torch

    images = torch.from_numpy(seeded_images())
    try:
        original, _ = settle_output(original, "program", classes=classes, label_offset=label_offset)
    except CheckpointError:
        return True
    with torch.no_grad():
        return largest_difference(original(images).numpy(), module(images).numpy()) < TOLERANCE


def _as_module(program: Any) -> nn.Module:
    from torch import nn

    class Exported(nn.Module):
        """A torch.export program, which stays in the mode, eval or training, in which it was exported."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def train(self, mode: bool = True) -> Exported:  # noqa: ARG002 (the signature is torch's)
            # A program's own train() raises.
            return self

        def forward(self, image: Tensor) -> Any:
            return self.program(image)

    return Exported()
