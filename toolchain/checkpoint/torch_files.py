"""Torch's own files: state_dicts and training checkpoints, whole pickled models, TorchScript, torch.export programs."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.metadata import METADATA_KEY
from toolchain.checkpoint.pickled import refuse_foreign
from toolchain.checkpoint.program_check import refuse_harmful_program
from toolchain.checkpoint.script_check import refuse_false_lengths, refuse_harmful_code, refuse_harmful_graphs
from toolchain.checkpoint.state import UNINITIALISED
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

_PLAIN_PICKLES = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Give a copy in the temporary folder that only this process can open; what was mapped of it stays there.

    A training may save over the file at any time. Where the disk has no room for the copy it is the file itself.
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
            # It has no name of its own, so that nothing is left of it however the process ends.
            copied = Path(f"/proc/self/fd/{stream.fileno()}")
        yield copied


def read_weights(path: Path) -> Any:
    """Return what a torch file holds, tensors and plain types only (`weights_only=True`).

    The tensors are views of a copy of the file where it allows that: those that nobody reads take no memory.

    Raises CheckpointError when it is damaged, when it holds pickled objects, which are code, or no torch model at all.
    """
    import torch

    refuse_foreign(path)
    try:
        with _silent(), private_copy(path) as copy:
            return torch.load(copy, map_location="cpu", weights_only=True, mmap=_holds_plain_numbers(copy))
    except pickle.UnpicklingError as error:
        if "UninitializedParameter" in str(error):
            raise CheckpointError(f"{path} {UNINITIALISED}") from error
        raise CheckpointError(
            f"{path} holds whole pickled Python objects{_culprit(str(error))}, and unpickling runs whatever code they "
            f"bring; save model.state_dict() instead, or give --trust-pickle if you made this file"
        ) from error
    except Exception as error:  # damage leads an unpickler anywhere
        raise CheckpointError(f"{path} is damaged or cut off ({first_line(error)}); save or copy it again") from error


def _holds_plain_numbers(path: Path) -> bool:
    """Return whether a file is a zip archive that was not packed: torch would take packed bytes for numbers."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())


def read_pickle(path: Path, namespace: ModuleType | None) -> Any:
    """Return what a torch file holds, unpickling whole objects: the caller was asked and trusts the file.

    `namespace` stands in for the `__main__` of the training script, where a pickled class often lives, and for modules
    that are not here. Raises CheckpointError when the file is damaged, holds no torch model, or needs a class that
    cannot be imported here.
    """
    import torch

    refuse_foreign(path)

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
        raise CheckpointError(
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
        # What torch.jit.load does, which does not show the compiled functions.
        read: Any = torch._C.import_ir_module
        script = read(unit, str(path), torch.device("cpu"), {}, False)
        module: nn.Module = torch.jit._recursive.wrap_cpp_module(script)  # type: ignore[no-untyped-call]
    except Exception as error:  # a damaged file makes torch's reader raise whatever its parts do
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
    except Exception as error:  # torch.export.load lets out everything from KeyError to AssertionError
        raise CheckpointError(
            f"{path} is no readable torch.export program ({first_line(error)}); save it with this torch's version"
        ) from error
    if not trusted:
        # Conditions on the sizes of inputs, kept as Python source that would be run.
        program._guards_code = []
    return program, {key: value for key, value in extra.items() if value}


@contextmanager
def _plain_pickles(*, only: bool) -> Iterator[None]:
    """Let `torch.load` read nothing but plain tensors within the block, whatever it is asked for."""
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
    """Let torch neither warn nor log tracebacks in the block; what it raises says what is wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _culprit(message: str) -> str:
    match = re.search(r"GLOBAL ([\w.]+)", message)
    return f" ({match[1]})" if match else ""
