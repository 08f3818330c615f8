"""Where a training computes: its device and threads, and tensors as the device wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from targets.errors import TargetUnavailable
from targets.host.machine import machine_state

if TYPE_CHECKING:
    import torch
    from torch import nn


def training_device(choice: str) -> torch.device:
    """Return the device for a choice of `DEVICES`: auto is the first GPU that torch can use, else the CPU.

    Raises TargetUnavailable for cuda where torch can use no GPU.
    """
    import torch

    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
        raise TargetUnavailable(
            f"torch {torch.__version__} {reason}", "install one with CUDA (pytorch.org), or give --device auto or cpu"
        )
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """Return what computes there, for people: the name of the GPU or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    state = machine_state()
    return str(state.get("cpu") or state["architecture"])


def memory_format(module: nn.Module) -> torch.memory_format:
    """Return the memory layout that the module's class names, or the contiguous one."""
    import torch

    # Only our own classes name one: a user's module that flattens with view() would fail on channels_last.
    layout: torch.memory_format = getattr(module, "memory_format", torch.contiguous_format)
    return layout


def device_of(module: nn.Module) -> torch.device:
    """Return the device that holds the module's tensors; the CPU for a module without any."""
    import torch

    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def as_tensor(module: nn.Module, pixels: NDArray[np.float32]) -> torch.Tensor:
    """Return pixels, float32 [N, 1, 28, 28] of `Preprocess.apply`, as the module's input: its layout, its device."""
    import torch

    return torch.from_numpy(pixels).to(device_of(module)).contiguous(memory_format=memory_format(module))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run torch on that many threads (0: all cores this process may use) inside the block."""
    import torch

    before, state = torch.get_num_threads(), machine_state()
    # The BLAS of torch's Arm wheels crashes on several threads without atomics, which a Raspberry Pi 4 does not have.
    crashes = state["architecture"] == "aarch64" and "atomics" not in state.get("isa", ())
    torch.set_num_threads(1 if crashes else threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
