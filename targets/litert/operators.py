"""LiteRT's profiler, through the C interface of the library in its package; it has no Python interface.

Interface: litert/c/litert_profiler.h, litert_compiled_model.h and litert_options.h of LiteRT 2. The runtime's options
are text under the key `runtime_options_string`, those of the CPU under `xnnpack`.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

from targets.artifact import Artifact
from targets.errors import RunFailed, runtime_errors
from targets.host.runtime_session import PROFILE_RUNS, PROFILE_WARMUP, typical_ns
from targets.session import Operator

LIBRARY = "libLiteRt.so"
_CPU = 1
_DELEGATE, _BUILTIN = 0, 2
"""LiteRtCpuKernelMode."""
_KERNELS = 2 | 8
"""Operators of the interpreter, and of a delegate (tflite::Profiler::EventType)."""
_WEIGHTED = re.compile(r"Convolution|Deconvolution|Fully Connected|DWConv")
_WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class _Memory(ctypes.Structure):
    _fields_ = (("footprint_kb", c_int64), ("allocated", c_size_t), ("in_use", c_size_t))


class _Event(ctypes.Structure):
    """ProfiledEventData."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("number", c_int64),
        ("subgraph", c_int64),
        ("source", c_int),
    )


class _LiteRt:
    """The library; a call that returns anything but kLiteRtStatusOk raises RunFailed."""

    def __init__(self, artifact: Artifact) -> None:
        import ai_edge_litert

        path = Path(ai_edge_litert.__file__).with_name(LIBRARY)
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise RunFailed(f"this ai-edge-litert has no profiler ({error}); install version 2.3 or newer") from error
        self._path = artifact.path

    def create(self, function: str, *arguments: object) -> c_void_p:
        """Call a function and return the handle that it writes to its last argument."""
        handle = c_void_p()
        self.call(function, *arguments, byref(handle))
        return handle

    def call(self, function: str, *arguments: object) -> None:
        try:
            status = getattr(self._library, f"LiteRt{function}")(*arguments)
        except AttributeError as error:
            raise RunFailed(f"this ai-edge-litert has no {function} ({error}); install version 2.3") from error
        if status:
            raise RunFailed(f"{self._path}: LiteRT's {function} failed (status {status}); export it again")


def litert_events(artifact: Artifact, *, threads: int, xnnpack: bool) -> list[tuple[str, int, int, int]]:
    """Return tag, kind, number and microseconds of every event of `PROFILE_RUNS` inferences; raises RunFailed."""
    litert = _LiteRt(artifact)
    environment = litert.create("CreateEnvironment", 0, None)
    model = litert.create("CreateModelFromFile", environment, str(artifact.path).encode())
    compiled = litert.create("CreateCompiledModel", environment, model, _options(litert, threads, xnnpack))
    signature = litert.create("GetModelSignature", model, c_size_t(0))

    def buffer(side: str) -> c_void_p:
        tensor = litert.create(f"GetSignature{side}TensorByIndex", signature, c_size_t(0))
        kind = ctypes.create_string_buffer(512)  # LiteRtRankedTensorType, which only LiteRT reads
        litert.call("GetRankedTensorType", tensor, kind)
        requirements = litert.create(f"GetCompiledModel{side}BufferRequirements", compiled, c_size_t(0), c_size_t(0))
        return litert.create("CreateManagedTensorBufferFromRequirements", environment, kind, requirements)

    source, sink = buffer("Input"), buffer("Output")
    count_of_buffers = c_size_t(1)
    profiler = litert.create("CompiledModelGetProfiler", compiled)
    records: list[tuple[str, int, int, int]] = []
    for run in range(PROFILE_WARMUP + PROFILE_RUNS):
        # The profiler has room for a limited number of events, and drops the oldest.
        litert.call("ResetProfiler", profiler)
        litert.call("StartProfiler", profiler)
        litert.call(
            "RunCompiledModel", compiled, c_size_t(0), count_of_buffers, byref(source), count_of_buffers, byref(sink)
        )
        litert.call("StopProfiler", profiler)
        if run >= PROFILE_WARMUP:
            count = c_int()
            litert.call("GetNumProfilerEvents", profiler, byref(count))
            events = (_Event * count.value)()
            litert.call("GetProfilerEvents", profiler, count, events)
            records += [(event.tag.decode(), event.kind, event.number, event.elapsed_us) for event in events]
    return records


def _options(litert: _LiteRt, threads: int, xnnpack: bool) -> c_void_p:
    # LiteRT frees the texts, so the C library must allocate them.
    libc = ctypes.CDLL(None)
    libc.strdup.restype = c_void_p
    mode = _DELEGATE if xnnpack else _BUILTIN
    texts = {
        "runtime_options_string": "enable_profiling = true\n",
        "xnnpack": f"num_threads = {threads}\nkernel_mode = {mode}\n",
    }
    options = litert.create("CreateOptions")
    litert.call("SetOptionsHardwareAccelerators", options, _CPU)
    for key, text in texts.items():
        copy = c_void_p(libc.strdup(text.encode()))
        litert.call("AddOpaqueOptions", options, litert.create("CreateOpaqueOptions", key.encode(), copy, libc.free))
    return options


def litert_operators(artifact: Artifact, *, threads: int, batch: int, xnnpack: bool) -> list[Operator]:
    """Return the kernels of an inference; raises RunFailed where LiteRT refuses the file or has another batch.

    XNNPACK has kernels of its own: those with weights are the file's operators with weights, in the same order; others
    get no layer.
    """
    layers = _layers(artifact, batch)
    durations: dict[tuple[str, int], list[int]] = {}
    kinds: dict[tuple[str, int], int] = {}
    for tag, kind, number, elapsed in litert_events(artifact, threads=threads, xnnpack=xnnpack):
        if kind & _KERNELS and number >= 0:
            durations.setdefault((tag, number), []).append(elapsed)
            kinds[tag, number] = kind
    weighted = [layer for operator, layer in layers if operator in _WITH_WEIGHTS]
    heavy = [key for key in durations if _WEIGHTED.search(key[0])]
    joined = dict(zip(heavy, weighted, strict=True)) if len(heavy) == len(weighted) else {}
    return [
        Operator(
            tag, layers[number][1] if kinds[tag, number] == 2 else joined.get((tag, number), ""), typical_ns(times)
        )
        for (tag, number), times in durations.items()
    ]


def _layers(artifact: Artifact, batch: int) -> list[tuple[str, str]]:
    """Return kind and layer of the file's operators: the name of their weights, else of their output."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate would replace the operators
    with runtime_errors(f"{artifact.path}: LiteRT refuses it", kinds=ValueError):
        interpreter = Interpreter(str(artifact.path), experimental_op_resolver_type=plain)
    fixed = int(interpreter.get_input_details()[0]["shape"][0])
    if fixed != batch:
        raise RunFailed(f"{artifact.path}: LiteRT profiles it in its own batch; give {fixed}, not {batch}")
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    layers = []
    for operator in interpreter._get_ops_details():
        kind, (_, *constants) = operator["op_name"], operator["inputs"]
        named = constants[0] if kind in _WITH_WEIGHTS else operator["outputs"][0]
        layers.append((kind, layer_of_tensor(names.get(named, ""))))
    return layers


def layer_of_tensor(tensor: str) -> str:
    """Return the layer of a tensor: the first of several names, without the number that makes it unique."""
    return re.sub(r"\.\d+$", "", tensor.partition(";")[0]).replace("/", ".")
