"""ONNX Runtime on GPUs, every node on one execution provider: NVIDIA's CUDA and TensorRT, and WebGPU on any vendor's.

By default ONNX Runtime gives nodes that a provider cannot run to its CPU provider, and all nodes where the provider
does not start. Here such a file is refused.

The package onnxruntime-gpu lists CUDA and TensorRT wherever it is installed, so the driver is asked first, and the
provider's library is loaded in another process. WebGPU comes with the plugin onnxruntime-ep-webgpu, by Vulkan. int8
saves memory there, not time: it has no integer kernels, and leaves QuantizeLinear and MatMulInteger to the CPU, so QDQ
and dynamically quantized files are refused (Misplaced). Files with int8 weights alone run wholly on the GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from glyphpress.extras import pip_line
from targets.artifact import Artifact, Format
from targets.catalog import full_name
from targets.errors import Misplaced, TargetUnavailable, runtime_errors
from targets.host import gpu_adapters
from targets.host.local_target import LocalTarget
from targets.host.runtime_session import Array, captured_output, quiet_stderr, required_module, resolved_threads
from targets.onnxruntime.cpu import BATCH, OrtSession, load_runtime
from targets.session import RuntimeFacts

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtEpDevice

INTEGER = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})
"""Operators of int8 arithmetic, from QDQ files and dynamic quantization."""

Nodes = dict[str, list[tuple[str, str]]]
"""Execution provider -> operator and name of each of its nodes."""


class DeviceSession(OrtSession):
    """An .onnx file on a GPU.

    Timed until the logits can be read. copies: each inference copies its input to the device (this happens when an
    input is bound, so it is bound again) and its logits to the host; else the input stays on the device, and the logits
    stay in `memory`. A device whose `synchronize_outputs` does not wait needs "cpu" there.
    """

    def __init__(
        self,
        artifact: Artifact,
        facts: RuntimeFacts,
        session: InferenceSession,
        load_ns: int,
        *,
        copies: bool,
        memory: str,
    ) -> None:
        """See `OrtSession`."""
        self._copies, self._memory = copies, "cpu" if copies else memory
        super().__init__(artifact, facts, session, batch=BATCH, load_ns=load_ns)

    def _prepared(self, batch: Array) -> Callable[[], object]:
        ort = load_runtime()
        binding = self._session.io_binding()
        source, sink = (ort.OrtValue.ortvalue_from_numpy(array) for array in (batch, self._infer(batch)))
        binding.bind_ortvalue_input(self.source.spec.name, source)
        if self._memory == "cpu":
            binding.bind_ortvalue_output(self.sink.spec.name, sink)
        else:
            binding.bind_output(self.sink.spec.name, self._memory)

        def infer() -> None:
            if self._copies:
                binding.bind_ortvalue_input(self.source.spec.name, source)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return infer


@dataclass(frozen=True)
class Provider:
    """An execution provider. device: of a plugin, whose provider is chosen by its device. options: of any other."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    device: OrtEpDevice | None = None

    def session(self, artifact: Artifact, threads: int) -> tuple[InferenceSession, int]:
        """Return a session of the file whose nodes all run on this provider, and their number.

        The number counts the nodes that the provider is given: with layout changes for it, before it fuses any. Raises
        Misplaced with the nodes that would run on another provider, TargetUnavailable where the provider does not
        start, RunFailed where ONNX Runtime refuses the file.
        """
        with captured_output(1, 2) as captured:
            try:
                session = self._open(artifact, threads, strict=True)
            except Exception:  # noqa: BLE001 (they have no other base class)
                session = self._opened_with_cpu(artifact, threads, captured)
        nodes: Nodes = {}
        for part in session.get_provider_graph_assignment_info():
            nodes.setdefault(part.ep_name, []).extend((node.op_type, node.name) for node in part.get_nodes())
        refuse_misplaced(self.name, nodes, artifact)
        return session, len(nodes.get(self.name, ()))

    def _open(self, artifact: Artifact, threads: int, *, strict: bool) -> InferenceSession:
        ort = load_runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if strict else "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.device is not None:
            options.add_provider_for_devices([self.device], {})
        providers = None if self.device is not None else [(self.name, dict(self.options))]
        return ort.InferenceSession(artifact.path, options, providers=providers, enable_fallback=0)

    def _opened_with_cpu(self, artifact: Artifact, threads: int, captured: Callable[[], str]) -> InferenceSession:
        """Return a session that may use the CPU too, which shows misplaced nodes; raises if it cannot open either."""
        with runtime_errors(f"{artifact.path}: ONNX Runtime refuses it"):
            try:
                session = self._open(artifact, threads, strict=False)
            except Exception as error:
                if "WebGPU adapter" in str(error):
                    reason = f"{self.name} finds no adapter that it can use"
                    raise TargetUnavailable(reason, "update its driver") from error
                raise
        if self.name not in session.get_providers():
            complaint = re.search(r"Failed to [^\x1b\n]{1,300}", captured())
            reason = complaint[0] if complaint else "it does not say why"
            raise TargetUnavailable(f"{self.name} is listed but does not start ({reason})", "install what it needs")
        return session


def refuse_misplaced(provider: str, nodes: Nodes, artifact: Artifact) -> None:
    """Raise Misplaced unless every node is placed on `provider`."""
    misplaced = {other: names for other, names in nodes.items() if other != provider}
    if misplaced:
        raise Misplaced(f"{artifact.path}: {_misplaced_text(nodes, misplaced, provider)}")


def _misplaced_text(nodes: Nodes, misplaced: Nodes, provider: str) -> str:
    strays = [node for names in misplaced.values() for node in names]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in strays).items())
    named = [name for _, name in strays if name][:3]
    which = f"{kinds}: {', '.join(named)}" if named else kinds
    advice = "take the float file, or one whose weights alone are int8"
    if not INTEGER.intersection(kind for kind, _ in strays):
        advice = "replace them by other operators, or take a target on the CPU"
    total = sum(map(len, nodes.values()))
    return f"{len(strays)} of {total} nodes would run on {', '.join(misplaced)}, not on {provider} ({which}); {advice}"


DRIVER = "libcuda.so.1"
CUDA_FIX = "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu[cuda,cudnn]`: both fill the same folder"
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
    fix = CUDA_FIX
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
        session, nodes = Provider(self.provider, self.provider_options).session(artifact, threads)
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
            raise TargetUnavailable(f"this onnxruntime has no {self.provider}", CUDA_FIX)
        name = cuda_device()
        missing = missing_library(Path(str(ort.__file__)).with_name("capi") / self.library, *self.packages)
        if missing:
            raise TargetUnavailable(f"{self.provider} needs {missing}, which is not here", self.fix)
        return name

    def _preloaded(self) -> ModuleType:
        """Load NVIDIA's libraries from their pip packages, where the system's loader does not look for them."""
        ort = load_runtime()
        for package in self.packages:
            with contextlib.suppress(ImportError):
                import_module(package)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
            ort.preload_dlls()
        return ort

    def _precision(self) -> str:
        return "float32"


class OrtTensorRt(OrtCuda):
    """ONNX Runtime on an NVIDIA GPU, by TensorRT alone; an operator that it cannot run is an error.

    TF32 is off unless the user sets NVIDIA_TF32_OVERRIDE, the only switch for it
    (https://github.com/microsoft/onnxruntime/issues/26029). Engines are built for each new batch size.
    """

    base_name = "ort-tensorrt"
    provider = "TensorrtExecutionProvider"
    library = "libonnxruntime_providers_tensorrt.so"
    fix = f"install TensorRT 10 with `{pip_line('tensorrt')}`"
    packages = ("tensorrt",)
    provider_options: ClassVar[dict[str, str]] = {}

    def _preloaded(self) -> ModuleType:
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        return super()._preloaded()

    def _precision(self) -> str:
        return "float32" if os.environ["NVIDIA_TF32_OVERRIDE"] == "0" else "tf32"


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


WEBGPU_PROVIDER = "WebGpuExecutionProvider"


class OrtWebGpu(gpu_adapters.WebGpuTarget):
    """ONNX Runtime on the GPU, by its WebGPU plug-in; a software adapter gives answers but no latency.

    adapter, copies: see `targets.host.gpu_adapters.SETTINGS`.
    """

    base_name = "ort-webgpu"
    formats: frozenset[Format] = frozenset({"onnx"})

    def runtime(self) -> ModuleType:
        """Return the plugin's package; raises TargetUnavailable."""
        if not hasattr(load_runtime(), "get_ep_devices"):
            raise TargetUnavailable("this onnxruntime takes no plugins", "install onnxruntime 1.24.4 or newer")
        return required_module("onnxruntime_ep_webgpu", "onnxruntime-ep-webgpu")

    def open(self, artifact: Artifact, *, threads: int = 1) -> DeviceSession:
        """Load the file, every node on WebGPU; `threads` are those of ONNX Runtime on the host."""
        ort, plugin = load_runtime(), self.runtime()
        adapter = gpu_adapters.find(self.adapter)
        threads = resolved_threads(threads)
        with gpu_adapters.restricted_to(adapter):
            device = _device(ort, plugin)
            start = perf_counter_ns()
            session, nodes = Provider(WEBGPU_PROVIDER, device=device).session(artifact, threads)
            load_ns = perf_counter_ns() - start
        facts = RuntimeFacts(
            target=self.name,
            runtime="onnxruntime",
            version=f"{ort.__version__}+webgpu.{version('onnxruntime-ep-webgpu')}",
            device=adapter.name,
            threads=threads,
            device_type="software" if adapter.software else "gpu",
            placement={WEBGPU_PROVIDER: nodes},
        )
        # With outputs on the device a run returns when its commands are queued, and synchronizing does not wait for
        # them either (0.04 ms of 29), so outputs go to the CPU.
        return DeviceSession(artifact, facts, session, load_ns, copies=self.copies, memory="cpu")


def _device(ort: ModuleType, plugin: ModuleType) -> OrtEpDevice:
    """Return the provider's device; registers its library where this process has not done so yet."""
    for register in (True, False):
        devices = [device for device in ort.get_ep_devices() if device.ep_name == WEBGPU_PROVIDER]
        if devices:
            return devices[0]
        if register:
            with quiet_stderr():
                ort.register_execution_provider_library("glyphpress-webgpu", plugin.get_library_path())
    raise TargetUnavailable(
        "onnxruntime-ep-webgpu offers no device", "check whether `vulkaninfo --summary` lists the GPU"
    )
