"""ONNX Runtime on WebGPU: any vendor's GPU through Vulkan, by the plugin onnxruntime-ep-webgpu.

int8 saves memory there, not time: it has no integer kernels, and leaves QuantizeLinear and MatMulInteger to the CPU, so
QDQ and dynamically quantized files are refused (Misplaced). Files with int8 weights alone run wholly on the GPU.
"""

from __future__ import annotations

from importlib.metadata import version
from time import perf_counter_ns
from typing import Any

from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.host import gpu_adapters
from targets.host.runtime_session import resolved_threads
from targets.host.stderr import quiet_stderr
from targets.onnxruntime.cpu import load_runtime
from targets.onnxruntime.single_provider import DeviceSession, single_provider_session
from targets.session import RuntimeFacts

PROVIDER = "WebGpuExecutionProvider"
FIX = "install it with `pip install onnxruntime-ep-webgpu`"


class OrtWebGpu(gpu_adapters.WebGpuTarget):
    """ONNX Runtime on the GPU, by its WebGPU plug-in; a software adapter gives answers but no latency.

    adapter, copies: see `targets.host.gpu_adapters.SETTINGS`.
    """

    base_name = "ort-webgpu"
    formats: frozenset[Format] = frozenset({"onnx"})

    def runtime(self) -> Any:
        """Return the plugin's package; raises TargetUnavailable."""
        if not hasattr(load_runtime(), "get_ep_devices"):
            raise TargetUnavailable("this onnxruntime takes no plugins", "install onnxruntime 1.24.4 or newer")
        try:
            import onnxruntime_ep_webgpu
        except ImportError as error:
            raise TargetUnavailable(f"onnxruntime-ep-webgpu cannot be imported ({error})", FIX) from error
        return onnxruntime_ep_webgpu

    def open(self, artifact: Artifact, *, threads: int = 1) -> DeviceSession:
        """Load the file, every node on WebGPU; `threads` are those of ONNX Runtime on the host."""
        ort, plugin = load_runtime(), self.runtime()
        adapter = gpu_adapters.find(self.adapter)
        threads = resolved_threads(threads)
        with gpu_adapters.restricted_to(adapter):
            device = _device(ort, plugin)
            start = perf_counter_ns()
            session, nodes = single_provider_session(
                artifact, PROVIDER, lambda options: _attached(options, device), threads
            )
            load_ns = perf_counter_ns() - start
        facts = RuntimeFacts(
            target=self.name,
            runtime="onnxruntime",
            version=f"{ort.__version__}+webgpu.{version('onnxruntime-ep-webgpu')}",
            device=adapter.name,
            threads=threads,
            device_type="software" if adapter.software else "gpu",
            placement={PROVIDER: nodes},
        )
        # With outputs on the device a run returns when its commands are queued, and synchronizing does not wait for
        # them either (0.04 ms of 29), so outputs go to the CPU.
        return DeviceSession(artifact, facts, session, load_ns, copies=self.copies, memory="cpu")


def _device(ort: Any, plugin: Any) -> Any:
    """Return the provider's device; registers its library where this process has not done so yet."""
    for register in (True, False):
        devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
        if devices:
            return devices[0]
        if register:
            with quiet_stderr():
                ort.register_execution_provider_library("glyphpress-webgpu", plugin.get_library_path())
    raise TargetUnavailable(
        "onnxruntime-ep-webgpu offers no device", "check whether `vulkaninfo --summary` lists the GPU"
    )


def _attached(options: Any, device: Any) -> dict[str, Any]:
    options.add_provider_for_devices([device], {})
    return {}
