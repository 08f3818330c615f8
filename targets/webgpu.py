"""ONNX Runtime on WebGPU: any vendor's GPU through Vulkan, by the plugin onnxruntime-ep-webgpu.

int8 saves memory there, not time: it has no integer kernels, and leaves QuantizeLinear and MatMulInteger to the CPU,
so QDQ and dynamically quantized files are Misplaced. Files whose weights alone are int8 run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter_ns
from typing import Any

from numpy.typing import NDArray

from targets import adapters
from targets.artifact import Artifact, Format
from targets.errors import TargetUnavailable
from targets.ort import BATCH, OrtSession, _runtime
from targets.quiet import quiet_stderr
from targets.session import resolved_threads
from targets.strict import strict_session
from targets.target import Availability, RuntimeFacts

PROVIDER = "WebGpuExecutionProvider"
FIX = "install it with `pip install onnxruntime-ep-webgpu`"


class OrtWebGpu:
    """Target `ort-webgpu`. Without a GPU it answers on a software adapter, of which it tells no latency.

    adapter, copies: see `targets.adapters.SETTINGS`.
    """

    formats: frozenset[Format] = frozenset({"onnx"})
    settings = adapters.SETTINGS

    def __init__(self, **settings: str) -> None:
        """Take settings by their names in the word."""
        self.name = ",".join(["ort-webgpu", *(f"{key}={value}" for key, value in settings.items())])
        self.adapter, self.copies = settings.get("adapter", "auto"), settings.get("copies", "with")

    def probe(self) -> Availability:
        """Say whether plugin and adapter are here, without opening a device."""
        try:
            _plugin()
            adapters.find(self.adapter)
        except TargetUnavailable as error:
            return Availability(False, error.reason, error.fix)
        return Availability(True)

    def open(self, artifact: Artifact, *, threads: int = 1) -> OrtWebGpuSession:
        """Load the file, every node on WebGPU; `threads` are those of ONNX Runtime on the host."""
        ort, plugin = _runtime(), _plugin()
        adapter = adapters.find(self.adapter)
        threads = resolved_threads(threads)
        with adapters.only(adapter):
            device = _device(ort, plugin)
            start = perf_counter_ns()
            session, nodes = strict_session(artifact, PROVIDER, lambda options: _attached(options, device), threads)
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
        return OrtWebGpuSession(artifact, facts, session, batch=BATCH, load_ns=load_ns, copies=self.copies)


class OrtWebGpuSession(OrtSession):
    """An .onnx file on WebGPU.

    Timed until the logits can be read on the host: a run whose output stays on the device returns when its commands
    are queued (0.04 ms of 29), and `synchronize_outputs` does not wait either. A bound input is copied when it is
    bound, so `copies=with` binds it anew for each inference.
    """

    def __init__(self, *arguments: Any, copies: str, **named: Any) -> None:
        """See `OrtSession`."""
        self._copies = copies
        super().__init__(*arguments, **named)

    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        ort = _runtime()
        binding = self._session.io_binding()
        source, sink = (ort.OrtValue.ortvalue_from_numpy(array) for array in (batch, self._infer(batch)))
        binding.bind_ortvalue_input(self.source.spec.name, source)
        binding.bind_ortvalue_output(self.sink.spec.name, sink)
        run = self._session.run_with_iobinding

        def once() -> None:
            run(binding)

        def once_with_copies() -> None:
            binding.bind_ortvalue_input(self.source.spec.name, source)
            run(binding)

        return once_with_copies if self._copies == "with" else once


def _plugin() -> Any:
    """Return the plugin's package; raises TargetUnavailable."""
    if not hasattr(_runtime(), "get_ep_devices"):
        raise TargetUnavailable("this onnxruntime takes no plugins", "install onnxruntime 1.24.4 or newer")
    try:
        import onnxruntime_ep_webgpu
    except ImportError as error:
        raise TargetUnavailable(f"onnxruntime-ep-webgpu cannot be imported ({error})", FIX) from error
    return onnxruntime_ep_webgpu


def _device(ort: Any, plugin: Any) -> Any:
    """Return the provider's device, registering its library where this process has not yet."""
    for register in (True, False):
        found = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
        if found:
            return found[0]
        if register:
            with quiet_stderr():
                ort.register_execution_provider_library("glyphpress-webgpu", plugin.get_library_path())
    raise TargetUnavailable("onnxruntime-ep-webgpu offers no device", "see whether `vulkaninfo --summary` lists the GPU")


def _attached(options: Any, device: Any) -> dict[str, Any]:
    options.add_provider_for_devices([device], {})
    return {}
