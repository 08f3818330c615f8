"""ONNX Runtime on the CPU.

Its exceptions share no base but Exception, hence the wide `except` around its calls; each becomes a RunFailed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, Format, TensorSpec
from targets.errors import RunFailed, TargetUnavailable
from targets.port import Port, image_port, logits_port
from targets.quiet import quiet_stderr
from targets.session import RuntimeSession, resolved_threads
from targets.target import Availability, RuntimeFacts

BATCH = 64
"""Images at once in `run`: larger batches fall out of the cache and are slower (256: 51 us an image, 64: 40)."""
FIX = "install it with `pip install onnxruntime`"

_DTYPES = {"float": "float32", "double": "float64", "float16": "float16"}


class OrtCpu:
    """Target `ort-cpu`: ONNX Runtime's own CPU kernels."""

    name = "ort-cpu"
    formats: frozenset[Format] = frozenset({"onnx"})

    def probe(self) -> Availability:
        """Say whether onnxruntime can be imported, without raising."""
        try:
            _runtime()
        except TargetUnavailable as error:
            return Availability(False, str(error), FIX)
        return Availability(True)

    def open(self, artifact: Artifact, *, threads: int = 1) -> OrtSession:
        """Load the file with `threads` intra-op threads (0: all cores), one inter-op thread, sequentially."""
        ort = _runtime()
        threads = resolved_threads(threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        start = perf_counter_ns()
        try:
            with quiet_stderr():
                session = ort.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RunFailed(f"{artifact.path}: ONNX Runtime refuses it ({_line(error)}); export it again") from error
        load_ns = perf_counter_ns() - start
        facts = RuntimeFacts(self.name, "onnxruntime", ort.__version__, ",".join(session.get_providers()), threads)
        return OrtSession(artifact, facts, session, load_ns)


class OrtSession(RuntimeSession):
    """An .onnx file in ONNX Runtime.

    Timed through IO binding on preallocated buffers: it is the way with the least overhead (2 to 4 us an inference
    below `run`), and the counterpart of LiteRT's `invoke`.
    """

    def __init__(self, artifact: Artifact, facts: RuntimeFacts, session: Any, load_ns: int) -> None:
        """Find the image input and the logits output of the open session."""
        self._session = session
        scales = _integer_scales(artifact.path, [*session.get_inputs(), *session.get_outputs()])
        source = image_port(artifact, [_port(node, scales) for node in session.get_inputs()])
        outputs = [_port(node, scales) for node in session.get_outputs()]
        sink = outputs[logits_port(artifact, outputs)]
        # Dynamic quantization takes its ranges from the whole batch: judged as a device runs it, image by image.
        batch = 1 if b"DynamicQuantize" in artifact.path.read_bytes() else BATCH
        super().__init__(artifact, facts, source, sink, batch=batch, load_ns=load_ns)

    def _infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            answer: NDArray[Any] = self._session.run([self.sink.spec.name], {self.source.spec.name: batch})[0]
        except Exception as error:
            raise RunFailed(
                f"{self.artifact.path}: ONNX Runtime failed on it ({_line(error)}); export it again"
            ) from error
        return answer

    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        ort = _runtime()
        binding = self._session.io_binding()
        # The binding holds the buffers' owners for as long as the call is used.
        held = [ort.OrtValue.ortvalue_from_numpy(array) for array in (batch, self._infer(batch))]
        binding.bind_ortvalue_input(self.source.spec.name, held[0])
        binding.bind_ortvalue_output(self.sink.spec.name, held[1])
        run = self._session.run_with_iobinding

        def once(_held: Any = held) -> None:
            run(binding)

        return once

    def __exit__(self, *_error: object) -> None:
        """Release the session."""
        self._session = None


def _runtime() -> Any:
    try:
        with quiet_stderr():
            import onnxruntime
    except ImportError as error:
        raise TargetUnavailable(f"onnxruntime cannot be imported ({error}); {FIX}") from error
    return onnxruntime


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _port(node: Any, scales: dict[str, tuple[float, int]]) -> Port:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    return Port(TensorSpec(node.name, shape, _DTYPES.get(kind, kind)), *scales.get(node.name, (1.0, 0)))


def _integer_scales(path: Path, nodes: list[Any]) -> dict[str, tuple[float, int]]:
    """Return scale and zero point of the integer inputs and outputs, read from the Q/DQ nodes beside them."""
    if all("float" in node.type or "double" in node.type for node in nodes):
        return {}
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise TargetUnavailable(f"{path}: integer inputs need a package; add it with `pip install onnx`") from error

    graph = onnx.load(path).graph
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            tensor = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            scale = constants[node.input[1]]
            if np.size(scale) == 1:
                found[tensor] = (float(scale.item()), int(zero.item()) if zero is not None else 0)
    return found
