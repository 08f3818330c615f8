"""Read torch's files and .safetensors: weights, pickled models, and programs, which are converted to torch's layers.

TorchScript and torch.export programs hold a graph without layers, which can be run but not pruned, and TorchScript
cannot be exported again. So they are exported to ONNX and rebuilt from it with torch's own layers; where that fails,
the program is used unchanged.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.float_model import settle_output
from toolchain.checkpoint.kinds import refuse_foreign_pickle
from toolchain.checkpoint.metadata import METADATA_KEY
from toolchain.checkpoint.onnx_graph import TOLERANCE, largest_difference, seeded_images
from toolchain.checkpoint.plain_objects import PLAIN_OBJECTS
from toolchain.checkpoint.program_check import (
    refuse_false_lengths,
    refuse_harmful_code,
    refuse_harmful_graphs,
    refuse_harmful_program,
)
from toolchain.checkpoint.source import ModelSource, import_source
from toolchain.checkpoint.state import UNINITIALISED
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import CheckpointError, OptionNeeded

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

SCRIPT_REFUSAL = "TorchScript whose steps depend on the image cannot be converted to layers; give the checkpoint"
_PLAIN_PICKLES = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Yield a copy in the temporary folder that only this process can open; memory mapped from it stays valid.

    A training may overwrite the file at any time. Where the disk has no room for a copy, yield the file itself.
    """
    with tempfile.TemporaryFile() as stream:
        try:
            with path.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 20)
            stream.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            copied = path
        else:
            # The copy has no name of its own, so that it disappears however the process ends.
            copied = Path(f"/proc/self/fd/{stream.fileno()}")
        yield copied


def read_payload(path: Path, source: ModelSource | None, *, trusted: bool) -> object:
    """Return what a torch file holds; if trusted, whole objects, whose classes may be in the module of `source`.

    Raises as `read_weights` and `read_pickle` do, and as `import_source` does.
    """
    return read_pickle(path, import_source(source) if source else None) if trusted else read_weights(path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a .safetensors file. Raises CheckpointError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with private_copy(path) as copy, safe_open(copy, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is a damaged .safetensors file ({error}); save or copy it again") from error


def read_weights(path: Path) -> object:
    """Return what a torch file holds, tensors and plain types only (`weights_only=True`), and PLAIN_OBJECTS.

    The tensors are mapped from a copy of the file where its format allows that, so that unused ones take no memory.
    Raises CheckpointError when it is damaged, when it holds pickled objects, which are code, or no torch model at all.
    """
    import torch

    refuse_foreign_pickle(path)
    try:
        with _silent(), private_copy(path) as copy, torch.serialization.safe_globals(PLAIN_OBJECTS):
            return torch.load(copy, map_location="cpu", weights_only=True, mmap=_holds_plain_numbers(copy))
    except pickle.UnpicklingError as error:
        if "UninitializedParameter" in str(error):
            raise CheckpointError(f"{path} {UNINITIALISED}") from error
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        culprit = f" ({match[1]})" if match else ""
        raise OptionNeeded(
            f"{path} holds whole pickled Python objects{culprit}, and unpickling runs whatever code they "
            "bring; save model.state_dict() instead, or give --trust-pickle if you made this file"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path} is damaged or cut off ({first_line(error)}); save or copy it again") from error


def _holds_plain_numbers(path: Path) -> bool:
    """Return whether a file is an uncompressed zip archive: torch would map compressed bytes as numbers."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())


def read_pickle(path: Path, namespace: ModuleType | None) -> object:
    """Return what a torch file holds, unpickling whole objects, which runs the file's code: the user trusts it.

    namespace: stands in for the `__main__` of the training script, where a pickled class often is, and for modules that
    are not installed. Raises CheckpointError when the file is damaged, holds no torch model, or needs a class that
    cannot be imported.
    """
    import torch

    refuse_foreign_pickle(path)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__main__" and namespace is not None:
                return getattr(namespace, name)
            try:
                return super().find_class(module, name)
            except ImportError:
                if not hasattr(namespace, name):
                    raise
                return getattr(namespace, name)

    reader = SimpleNamespace(Unpickler=Unpickler, load=pickle.load, __name__="pickle")
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except (AttributeError, ImportError) as error:
        raise OptionNeeded(
            f"{path} is a pickled model whose class is not here ({first_line(error)}); "
            f"name its file with --model FILE.py:CLASS, or save model.state_dict()"
        ) from error
    except Exception as error:  # unpickling runs the file's own code, which can raise anything
        raise CheckpointError(f"{path} cannot be unpickled ({first_line(error)}); save model.state_dict()") from error


def read_torchscript(path: Path, *, trusted: bool = False) -> nn.Module:
    """Return a TorchScript module.

    Raises CheckpointError when it cannot be read, or when its code could do more than compute and is not trusted.
    """
    import torch

    refuse_false_lengths(path)
    if not trusted:
        refuse_harmful_code(path)
    try:
        unit = torch._C.CompilationUnit()
        # As torch.jit.load does, which gives no access to the compiled functions.
        read: Any = torch._C.import_ir_module
        script = read(unit, str(path), torch.device("cpu"), {}, False)
        module: nn.Module = torch.jit._recursive.wrap_cpp_module(script)  # type: ignore[no-untyped-call]
    except Exception as error:  # torch's reader raises anything on a damaged file
        raise CheckpointError(f"{path} is no readable TorchScript ({first_line(error)}); save it again") from error
    if not trusted:
        refuse_harmful_graphs(unit, path)
    return module.eval()


def read_program(path: Path, *, trusted: bool = False) -> tuple[ExportedProgram, dict[str, str]]:
    """Return a torch.export program and our metadata in it.

    Raises CheckpointError when it cannot be read, or when it could do more than compute and is not trusted.
    """
    import torch

    if not trusted:
        refuse_harmful_program(path)
    extra = {METADATA_KEY: ""}
    try:
        with _silent(), _plain_pickles(only=not trusted):
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # torch.export.load raises anything, from KeyError to AssertionError
        raise CheckpointError(
            f"{path} is no readable torch.export program ({first_line(error)}); save it with this torch's version"
        ) from error
    if not trusted:
        # Conditions on the sizes of inputs, stored as Python source that torch would run.
        program._guards_code = []
    return program, {key: value for key, value in extra.items() if value}


@contextmanager
def _plain_pickles(*, only: bool) -> Iterator[None]:
    """Make `torch.load` accept only plain tensors within the block, even when called with weights_only=False."""
    before = os.environ.get(_PLAIN_PICKLES)
    os.environ[_PLAIN_PICKLES] = "1" if only else before or "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PLAIN_PICKLES]
        else:
            os.environ[_PLAIN_PICKLES] = before


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress torch's warnings and logged tracebacks in the block; the exceptions that it raises say enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def is_script(module: nn.Module) -> bool:
    """Return whether a module is TorchScript or wraps it."""
    from torch.jit import ScriptModule

    return any(isinstance(part, ScriptModule) for part in module.modules())


def export_script(script: nn.Module, target: Path) -> None:
    """Write TorchScript as ONNX of opset 17, with torch's older exporter, since the newer one does not take it."""
    import torch

    axes, blank = {"image": {0: "batch"}}, (torch.zeros(2, 1, 28, 28),)
    torch.onnx.export(
        script, blank, str(target), dynamo=False, input_names=["image"], dynamic_axes=axes, opset_version=17
    )


def from_torchscript(script: nn.Module, classes: int, label_offset: int | None) -> tuple[nn.Module, str]:
    """Return a module that answers as the script does, made of layers where possible, and a note on whether it is."""
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
    """Return a module that answers as the program does, made of layers where possible, and a note on whether it is."""
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
    """Return whether both give the same logits; a program of fixed batch size was already compared as ONNX."""
    import torch

    images = torch.from_numpy(seeded_images())
    try:
        original = settle_output(original, "program", classes, label_offset).module
    except CheckpointError:
        return True
    with torch.no_grad():
        return largest_difference(original(images).numpy(), module(images).numpy()) < TOLERANCE


def _as_module(program: ExportedProgram) -> nn.Module:
    from torch import nn

    class Exported(nn.Module):
        """A torch.export program as a module; it stays in the mode (eval or training) in which it was exported."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def train(self, mode: bool = True) -> Exported:  # noqa: ARG002 (the signature is torch's)
            # A program's own train() raises.
            return self

        def forward(self, image: Tensor) -> Any:
            return self.program(image)

    return Exported()
