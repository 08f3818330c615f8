"""OpenVINO on the CPU, through its own package.

Its plugin for ONNX Runtime offers a device on Intel's processors alone, while OpenVINO itself runs well on others too.
So its own package is used, which takes .onnx files directly.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from targets.artifact import Artifact, Format
from targets.errors import RunFailed, TargetUnavailable, in_one_line, runtime_errors
from targets.host.local_target import LocalTarget
from targets.host.machine import cpu_name
from targets.host.runtime_session import (
    Array,
    RuntimeSession,
    codecs_of,
    input_and_output,
    required_module,
    resolved_threads,
)
from targets.session import RuntimeFacts

if TYPE_CHECKING:
    from openvino import CompiledModel

BATCH = 64
_PRECISIONS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


class OpenVinoCpu(LocalTarget):
    """OpenVINO on the CPU: one stream, for latency; float operators compute in 32 bits.

    By default OpenVINO computes in bfloat16 on processors that have it, which changes logits by 0.1. The precision that
    it reports goes into the facts. It runs no .tflite files, since its front end fails on quantized ones.
    """

    name = "openvino-cpu"
    formats: frozenset[Format] = frozenset({"onnx"})

    def require(self) -> None:
        """See `LocalTarget.require`: openvino with its CPU plugin."""
        if "CPU" not in _runtime().Core().available_devices:
            raise TargetUnavailable(
                "this OpenVINO has no CPU plugin", "install it again: `pip install --force-reinstall openvino`"
            )

    def open(self, artifact: Artifact, *, threads: int = 1) -> OpenVinoSession:
        """Compile the file for `threads` threads (0: all cores)."""
        openvino = _runtime()
        threads = resolved_threads(threads)
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        start = perf_counter_ns()
        with runtime_errors(f"{artifact.path}: OpenVINO refuses it"):
            core = openvino.Core()
            model = core.compile_model(
                core.read_model(artifact.path), "CPU", hints | {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
            )
        load_ns = perf_counter_ns() - start
        nodes = len(model.get_runtime_model().get_ops())
        precision = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        facts = RuntimeFacts(
            self.name,
            "openvino",
            openvino.__version__.partition("-")[0],
            cpu_name(),
            threads,
            precision=_PRECISIONS.get(precision, precision),
            placement=dict.fromkeys(model.get_property("EXECUTION_DEVICES"), nodes),
        )
        return OpenVinoSession(artifact, facts, model, load_ns)


class OpenVinoSession(RuntimeSession):
    """An .onnx file that OpenVINO compiled. `infer` alone is timed, on tensors that are bound before."""

    def __init__(self, artifact: Artifact, facts: RuntimeFacts, model: CompiledModel, load_ns: int) -> None:
        """Take the compiled model; raises RunFailed where it has no image input or no logits output."""
        self._request = model.create_infer_request()
        source, sink, self._output = input_and_output(artifact, *codecs_of(artifact))
        super().__init__(artifact, facts, source, sink, batch=BATCH, load_ns=load_ns)

    def _infer(self, batch: Array) -> Array:
        self._prepared(batch)()
        return np.array(self._request.get_output_tensor(self._output).data)

    def _prepared(self, batch: Array) -> Callable[[], object]:
        with runtime_errors(f"{self.artifact.path}: OpenVINO failed"):
            self._request.set_input_tensor(_runtime().Tensor(np.ascontiguousarray(batch)))
        return self._invoke

    def _invoke(self) -> None:
        try:
            self._request.infer()
        except Exception as error:
            raise RunFailed(f"{self.artifact.path}: OpenVINO failed ({in_one_line(error)}); export it again") from error

    def __exit__(self, *_error: object) -> None:
        """Release the request."""
        self._request = None


def _runtime() -> ModuleType:
    return required_module("openvino", "openvino")
