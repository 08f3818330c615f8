"""ONNX Runtime on NVIDIA GPUs: the providers CUDA and TensorRT of the package onnxruntime-gpu.

The package lists both providers wherever it is installed; without driver, device or libraries its sessions silently run
on the CPU. So the driver is asked first, then the provider's library is loaded in another process, and finally the
placement of the nodes is checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter_ns
from typing import Any, ClassVar

from targets.artifact import Artifact, Format
from targets.catalog import full_name
from targets.errors import TargetUnavailable
from targets.host.local_target import LocalTarget
from targets.host.runtime_session import resolved_threads
from targets.onnxruntime.cpu import load_runtime
from targets.onnxruntime.single_provider import DeviceSession, single_provider_session
from targets.session import RuntimeFacts

DRIVER = "libcuda.so.1"
FIX = "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu[cuda,cudnn]`: both fill the same folder"
_LOAD_LIBRARY = """
import contextlib, ctypes, importlib, sys, onnxruntime
for package in sys.argv[2:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(package)
onnxruntime.preload_dlls()
ctypes.CDLL(sys.argv[1])
"""
_MISSING = re.compile(r"(\S+): cannot open shared object file")


class OrtCuda(LocalTarget):
    """ONNX Runtime on an NVIDIA GPU, by the CUDA provider alone; float32 without TF32.

    copies: whether a timed inference copies its input to the device and its logits back.
    """

    formats: frozenset[Format] = frozenset({"onnx"})
    settings: ClassVar[dict[str, tuple[str, ...]]] = {"copies": ("with", "without")}
    base_name = "ort-cuda"
    provider = "CUDAExecutionProvider"
    library = "libonnxruntime_providers_cuda.so"
    packages: tuple[str, ...] = ()
    provider_options: ClassVar[dict[str, str]] = {"use_tf32": "0"}

    def __init__(self, *, copies: str = "with") -> None:
        """Take the setting."""
        self.name = full_name(self.base_name, self.settings, copies=copies)
        self.copies = copies == "with"

    def require(self) -> None:
        """See `LocalTarget.require`: provider, driver, device, libraries; none is loaded into this process."""
        self._device()

    def open(self, artifact: Artifact, *, threads: int = 1) -> DeviceSession:
        """Load the file, every node on the provider; `threads` are those of ONNX Runtime on the host."""
        device, threads = self._device(), resolved_threads(threads)
        ort = self._preloaded()
        start = perf_counter_ns()
        session, nodes = single_provider_session(artifact, self.provider, self._attached, threads)
        load_ns = perf_counter_ns() - start
        facts = RuntimeFacts(
            target=self.name,
            runtime="onnxruntime",
            version=ort.__version__,
            device=device,
            threads=threads,
            device_type="gpu",
            precision=self._precision(),
            placement={self.provider: nodes},
        )
        return DeviceSession(artifact, facts, session, load_ns, copies=self.copies, memory="cuda")

    def _device(self) -> str:
        """Return the name of the GPU; raises TargetUnavailable with the first thing that is missing."""
        ort = load_runtime()
        if self.provider not in ort.get_available_providers():
            raise TargetUnavailable(f"this onnxruntime has no {self.provider}", FIX)
        name = cuda_device()
        missing = missing_library(Path(ort.__file__).with_name("capi") / self.library, *self.packages)
        if missing:
            raise TargetUnavailable(f"{self.provider} needs {missing}, which is not here", self._fix())
        return name

    def _preloaded(self) -> Any:
        """Load NVIDIA's libraries from their pip packages, where the system's loader does not look for them."""
        ort = load_runtime()
        for package in self.packages:
            with contextlib.suppress(ImportError):
                import_module(package)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
            ort.preload_dlls()
        return ort

    def _attached(self, _options: Any) -> dict[str, Any]:
        return {"providers": [(self.provider, self.provider_options)]}

    def _precision(self) -> str:
        return "float32"

    def _fix(self) -> str:
        return FIX


class OrtTensorRt(OrtCuda):
    """ONNX Runtime on an NVIDIA GPU, by TensorRT alone; an operator that it cannot run is an error.

    TF32 is off unless the user sets NVIDIA_TF32_OVERRIDE, the only switch for it
    (https://github.com/microsoft/onnxruntime/issues/26029). Engines are built for each new batch size.
    """

    base_name = "ort-tensorrt"
    provider = "TensorrtExecutionProvider"
    library = "libonnxruntime_providers_tensorrt.so"
    packages = ("tensorrt",)
    provider_options: ClassVar[dict[str, str]] = {}

    def _preloaded(self) -> Any:
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        return super()._preloaded()

    def _precision(self) -> str:
        return "float32" if os.environ["NVIDIA_TF32_OVERRIDE"] == "0" else "tf32"

    def _fix(self) -> str:
        return "install TensorRT 10 with `pip install 'tensorrt>=10,<11'`"


def cuda_device() -> str:
    """Return the name of the first GPU that NVIDIA's driver shows (CUDA_VISIBLE_DEVICES); raises TargetUnavailable."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise TargetUnavailable(
            f"there is no NVIDIA driver ({DRIVER})", "install it, on a machine with its GPU"
        ) from error
    code = driver.cuInit(0)
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    code = code or driver.cuDeviceGet(ctypes.byref(device), 0)
    code = code or driver.cuDeviceGetName(name, len(name), device)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {code}"
        raise TargetUnavailable(f"NVIDIA's driver has no device ({reason})", "see `nvidia-smi`")
    return name.value.decode()


def missing_library(provider: Path, *packages: str) -> str:
    """Return the first library that a provider's library needs and the loader does not find; "" where none is missing.

    packages: Python packages that load libraries when they are imported. The check runs in another process, so that
    this one loads none.
    """
    command = [sys.executable, "-c", _LOAD_LIBRARY, str(provider), *packages]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    match = _MISSING.search(done.stderr)
    return match[1] if match else ""
