"""Torch's own files: state_dicts and training checkpoints, whole pickled models, TorchScript, torch.export programs."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.state import UNINITIALISED
from toolchain.checkpoint.stored import METADATA_KEY
from toolchain.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def read_weights(path: Path) -> Any:
    """Return what a torch file holds, tensors and plain types only (`weights_only=True`).

    Raises CheckpointError when it is damaged, or when it holds pickled objects, which are code.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "UninitializedParameter" in str(error):
            raise CheckpointError(f"{path} {UNINITIALISED}") from error
        raise CheckpointError(
            f"{path} holds whole pickled Python objects{_culprit(str(error))}, and unpickling runs whatever code they "
            f"bring; save model.state_dict() instead, or give --trust-pickle if you made this file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or cut off ({first_line(error)}); save or copy it again") from error


def read_pickle(path: Path, namespace: ModuleType | None) -> Any:
    """Return what a torch file holds, unpickling whole objects: the caller was asked and trusts the file.

    `namespace` stands in for the `__main__` of the training script, where a pickled class often lives. Raises
    CheckpointError when the file is damaged or needs a class that cannot be imported here.
    """
    import torch

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__main__" and namespace is not None:
                return getattr(namespace, name)
            return super().find_class(module, name)

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


def read_torchscript(path: Path) -> nn.Module:
    """Return a TorchScript module. Raises CheckpointError when it cannot be read."""
    import torch

    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated; files of it exist all the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable TorchScript ({first_line(error)}); save it again") from error
    return module.eval()


def read_program(path: Path) -> tuple[ExportedProgram, dict[str, str]]:
    """Return a torch.export program and our metadata in it. Raises CheckpointError when it cannot be read."""
    import torch

    extra = {METADATA_KEY: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # torch.export.load lets out everything from KeyError to AssertionError
        raise CheckpointError(
            f"{path} is no readable torch.export program ({first_line(error)}); save it with this torch's version"
        ) from error
    return program, {key: value for key, value in extra.items() if value}


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, short enough for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _culprit(message: str) -> str:
    match = re.search(r"GLOBAL ([\w.]+)", message)
    return f" ({match[1]})" if match else ""
