"""ONNX Runtime on the CPU, and what an .ort file declares: a graph that ONNX Runtime has optimized and stored.

Its exceptions share no base but Exception, so any exception of its calls becomes a RunFailed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from targets.artifact import Artifact, Format, TensorSpec
from targets.catalog import full_name
from targets.errors import ArtifactError, TargetUnavailable, in_one_line, runtime_errors, translated
from targets.host.local_target import LocalTarget
from targets.host.machine import cpu_name, machine_state
from targets.host.runtime_session import (
    Array,
    RuntimeSession,
    codecs_of,
    input_and_output,
    quiet_stderr,
    required_module,
    resolved_threads,
)
from targets.host.text import json_value
from targets.session import RuntimeFacts

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg, SessionOptions

    from targets.session import Operator


BATCH = 64
"""Images per inference in `run`; larger batches do not fit the cache and are slower (256: 51 us an image, 64: 40)."""


class OrtKernels(LocalTarget):
    """ONNX Runtime's CPU kernels; subclasses choose the kernels and the level of graph optimization.

    On x86 without VNNI, products of unsigned activations and signed weights are summed in pairs in saturating 16 bits,
    so an int8 file may give other answers there; `ort-precise` and `ort-reference` show whether it does.
    """

    name: str
    formats: frozenset[Format] = frozenset({"onnx", "ort"})
    has_profiler = True
    graph = "all"
    entries: Mapping[str, str] = {}

    def require(self) -> None:
        """See `LocalTarget.require`: onnxruntime."""
        load_runtime()

    def options(self, threads: int) -> SessionOptions:
        """Return the session options: `threads` intra-op threads, one inter-op thread, sequential execution."""
        ort = load_runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        levels = ort.GraphOptimizationLevel
        level = "ORT_DISABLE_ALL" if self.graph == "disable" else f"ORT_ENABLE_{self.graph.upper()}"
        # ONNX Runtime before 1.22 has no level `layout`.
        options.graph_optimization_level = getattr(levels, level, levels.ORT_ENABLE_ALL)
        with suppress(RuntimeError):  # older versions refuse unknown entries
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        for key, value in self.entries.items():
            options.add_session_config_entry(key, value)
        return options

    def open(self, artifact: Artifact, *, threads: int = 1) -> OrtSession:
        """Load the file with `threads` intra-op threads (0: all cores), one inter-op thread, sequentially."""
        ort = load_runtime()
        threads = resolved_threads(threads)
        batch = batch_size(artifact.path)
        start = perf_counter_ns()
        with runtime_errors(f"{artifact.path}: ONNX Runtime refuses it"), quiet_stderr():
            options = self.options(threads)
            session = ort.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
        load_ns = perf_counter_ns() - start
        nodes = _placement(session)
        facts = RuntimeFacts(self.name, "onnxruntime", ort.__version__, cpu_name(), threads, placement=nodes)
        return OrtSession(artifact, facts, session, batch=batch, load_ns=load_ns)

    def operators(self, artifact: Artifact, *, threads: int = 1, batch: int = 1) -> list[Operator]:
        """See `Target.operators`."""
        from targets.onnxruntime.operators import ort_operators

        threads = resolved_threads(threads)

        def prepared(session: InferenceSession) -> Callable[[], object]:
            facts = RuntimeFacts(self.name, "onnxruntime", load_runtime().__version__, "", threads)
            return OrtSession(artifact, facts, session, batch=batch, load_ns=0).prepared(batch)

        return ort_operators(artifact, self.options(threads), prepared)


class OrtCpu(OrtKernels):
    """ONNX Runtime on the CPU; the setting `graph` is the level of graph optimization."""

    settings: ClassVar[dict[str, tuple[str, ...]]] = {"graph": ("all", "layout", "extended", "basic", "disable")}
    default_kernels = True

    def __init__(self, *, graph: str = "all") -> None:
        """Take the setting; raises UnknownTarget."""
        self.graph, self.name = graph, full_name("ort-cpu", self.settings, graph=graph)


class OrtReference(OrtKernels):
    """ONNX Runtime without graph optimization: it runs the file's own operators one by one; slow.

    QuantizeLinear and DequantizeLinear stay where the file has them and everything between them runs in float, so
    this is what a QDQ file means by definition, without integer kernels and their saturation. Integer operators of the
    file itself, such as MatMulInteger of dynamic quantization, stay integer.
    """

    name = "ort-reference"
    graph = "disable"


class OrtPrecise(OrtKernels):
    """ONNX Runtime on x86 with unsigned weights, whose kernels sum in 32 bits and cannot saturate; slower.

    onnxruntime_session_options_config_keys.h: "x64 SSE4.1/AVX2/AVX512(with no VNNI) has overflow problem with
    quantized matrix multiplication with U8S8. To avoid this we need to use slower U8U8 matrix multiplication
    instead." The U8U8 kernels use no VNNI (but AVX-VNNI-INT8), so where the processor has it this switches between
    kernels with and without: `cnn-small` in int8 takes 127 us in place of 60, to the same bits. Float files run as on
    `ort-cpu`.
    """

    name = "ort-precise"
    entries: Mapping[str, str] = {"session.x64quantprecision": "1"}

    def require(self) -> None:
        """See `LocalTarget.require`: onnxruntime, and other kernels to switch to on this processor."""
        if not switches_kernels(machine_state().get("isa", ())):
            raise TargetUnavailable(
                "ONNX Runtime has unsigned kernels to switch to only on x86 with AVX2 and FMA; not this processor",
                "take ort-reference, which needs none",
            )
        super().require()


def switches_kernels(isa: Collection[str]) -> bool:
    """Return whether `session.x64quantprecision` does anything on a processor with these flags (`machine_state`).

    It does where U8U8 and U8S8 products have different kernels: MlasPlatformU8S8Overflow in ONNX Runtime's
    mlas/lib/platform.cpp, which sets both for AVX2 with FMA, and whatever comes on top replaces U8S8 only.
    """
    return {"avx2", "fma"} <= set(isa)


class OrtSession(RuntimeSession):
    """An .onnx or .ort file in ONNX Runtime.

    Timed through IO binding on preallocated buffers: this has the least overhead (2 to 4 us per inference less than
    `run`), and corresponds to LiteRT's `invoke`.
    """

    def __init__(
        self, artifact: Artifact, facts: RuntimeFacts, session: InferenceSession, *, batch: int, load_ns: int
    ) -> None:
        """Take the open session; raises RunFailed where it has no image input or no logits output."""
        self._session = session
        source, sink, _ = input_and_output(artifact, *codecs_of(artifact))
        super().__init__(artifact, facts, source, sink, batch=batch, load_ns=load_ns)

    def _infer(self, batch: Array) -> Array:
        with runtime_errors(f"{self.artifact.path}: ONNX Runtime failed on it"):
            answer: Array = self._session.run([self.sink.spec.name], {self.source.spec.name: batch})[0]
        return answer

    def _prepared(self, batch: Array) -> Callable[[], object]:
        ort = load_runtime()
        binding = self._session.io_binding()
        # The buffers must live as long as the function that is returned.
        buffers = [ort.OrtValue.ortvalue_from_numpy(array) for array in (batch, self._infer(batch))]
        binding.bind_ortvalue_input(self.source.spec.name, buffers[0])
        binding.bind_ortvalue_output(self.sink.spec.name, buffers[1])
        run = self._session.run_with_iobinding

        def infer(_buffers: object = buffers) -> None:
            run(binding)

        return infer

    def __exit__(self, *_error: object) -> None:
        """Release the session."""
        self._session = None


def load_runtime() -> ModuleType:
    """Return the module onnxruntime; raises TargetUnavailable."""
    return required_module("onnxruntime", "onnxruntime")


def _placement(session: InferenceSession) -> dict[str, int]:
    """Return how many nodes each execution provider runs; empty where ONNX Runtime is too old to tell."""
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    nodes: Counter[str] = Counter()
    for part in assignment() if assignment else ():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def batch_size(path: Path) -> int:
    """Return the batch size of `run`; call it before the session is opened, so that its peak memory is not raised."""
    try:
        content = path.read_bytes()
    except OSError:
        return BATCH  # the runtime gives a better message
    # Dynamic quantization takes its ranges from the whole batch; a device runs single images.
    return 1 if b"DynamicQuantize" in content else BATCH


SCALES_KEY = "glyphpress.scales"
"""Metadata with the scales of integer inputs and outputs, which the optimized graph no longer tells."""
_DTYPES = {"float": "float32", "double": "float64"}


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return its inputs and outputs; raises ArtifactError, also where the scales of integers are missing."""
    session = _session(path)
    with translated(lambda reason: ArtifactError(f"{path}: its metadata is damaged ({reason}); convert it again")):
        scales = json_value(_metadata(path, session).get(SCALES_KEY, "{}"))
        sides = (session.get_inputs(), session.get_outputs())
        inputs, outputs = (tuple(_spec(path, node, scales) for node in nodes) for nodes in sides)
        return inputs, outputs


def _spec(path: Path, node: NodeArg, scales: dict[str, tuple[float, int]]) -> TensorSpec:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(kind, kind)
    if "float" not in dtype and node.name not in scales:
        raise ArtifactError(
            f"{path}: has no scale for the {dtype} values of {node.name}; make it with `glyphpress export`"
        )
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    return TensorSpec(node.name, shape, dtype, *scales.get(node.name, ()))


def metadata(path: Path) -> dict[str, str]:
    """Return its metadata, copied from the .onnx file it was made from; raises ArtifactError."""
    return _metadata(path, _session(path))


def _metadata(path: Path, session: InferenceSession) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: its metadata is damaged ({error.reason}); convert it again") from error


def _session(path: Path) -> InferenceSession:
    ort = load_runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(
            f"{path}: not an .ort file, or one of another ONNX Runtime ({in_one_line(error)}); convert it again"
        ) from error
