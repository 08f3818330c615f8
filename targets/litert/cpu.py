"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK or with the reference kernels."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from math import prod
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from targets.artifact import MOST_BYTES, Artifact, Format, TensorSpec
from targets.catalog import full_name
from targets.errors import ArtifactError, RunFailed, in_one_line, runtime_errors, translated
from targets.host.local_target import LocalTarget
from targets.host.machine import cpu_name
from targets.host.runtime_session import (
    Array,
    RuntimeSession,
    TensorCodec,
    input_and_output,
    quiet_stderr,
    required_module,
    resolved_threads,
)
from targets.session import RuntimeFacts

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

    from targets.session import Operator

BATCH = 64
REFUSALS = (ValueError, RuntimeError)
"""What LiteRT raises for a file that it cannot load or run."""


class LiteRtKernels(LocalTarget):
    """LiteRT's interpreter on the CPU; subclasses choose the kernels."""

    name: str
    resolver: str
    formats: frozenset[Format] = frozenset({"tflite"})

    def require(self) -> None:
        """See `LocalTarget.require`: ai-edge-litert."""
        load_runtime()

    def open(self, artifact: Artifact, *, threads: int = 1) -> LiteRtSession:
        """Load the file with `threads` threads (0: all cores)."""
        litert = load_runtime()
        threads = resolved_threads(threads)
        start = perf_counter_ns()
        # XNNPACK prints a line on descriptor 2 from C++.
        with runtime_errors(f"{artifact.path}: LiteRT refuses it", kinds=REFUSALS), quiet_stderr():
            interpreter = litert.Interpreter(
                model_path=str(artifact.path),
                num_threads=threads,
                experimental_op_resolver_type=litert.OpResolverType[self.resolver],
            )
            refuse_huge(interpreter, artifact.path)
            interpreter.allocate_tensors()
            load_ns = perf_counter_ns() - start
            nodes = _placement(interpreter)
        runtime = "ai-edge-litert"
        facts = RuntimeFacts(self.name, runtime, version(runtime), cpu_name(), threads, placement=nodes)
        return LiteRtSession(artifact, facts, interpreter, load_ns)


class LiteRtCpu(LiteRtKernels):
    """LiteRT on the CPU; `xnnpack=off` leaves the XNNPACK delegate out and keeps LiteRT's own fast kernels."""

    settings: ClassVar[dict[str, tuple[str, ...]]] = {"xnnpack": ("on", "off")}
    default_kernels = True
    has_profiler = True

    def __init__(self, *, xnnpack: str = "on") -> None:
        """Take the setting; raises UnknownTarget."""
        self.name = full_name("litert-cpu", self.settings, xnnpack=xnnpack)
        self.resolver = "AUTO" if xnnpack == "on" else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"

    def operators(self, artifact: Artifact, *, threads: int = 1, batch: int = 1) -> list[Operator]:
        """See `Target.operators`; batch must be the file's own."""
        from targets.litert.operators import litert_operators

        return litert_operators(
            artifact, threads=resolved_threads(threads), batch=batch, xnnpack=self.resolver == "AUTO"
        )


class LiteRtReference(LiteRtKernels):
    """LiteRT's reference kernels, which define what each operator means; slow, without a delegate."""

    name = "litert-reference"
    resolver = "BUILTIN_REF"


class LiteRtSession(RuntimeSession):
    """A .tflite file in LiteRT's interpreter.

    Images run one by one where the file fixes its batch at 1, as files from torch do (their reshapes contain the 1, so
    resizing the input fails); only a file with a dynamic batch in its signature is resized. `invoke` alone is timed:
    the input is in the arena before it, and the output can be read there after it.
    """

    def __init__(self, artifact: Artifact, facts: RuntimeFacts, interpreter: Interpreter, load_ns: int) -> None:
        """Take the allocated interpreter; raises RunFailed where it has no image input or no logits output."""
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        codecs = [codec_of(detail) for detail in inputs], [codec_of(detail) for detail in outputs]
        source, sink, index = input_and_output(artifact, *codecs)
        self._input, self._output = inputs[0]["index"], outputs[index]["index"]
        self._allocated = int(inputs[0]["shape"][0])
        super().__init__(artifact, facts, source, sink, batch=BATCH, load_ns=load_ns)

    def _infer(self, batch: Array) -> Array:
        self._prepared(batch)()
        answer: Array = self._interpreter.get_tensor(self._output)
        return answer

    def _prepared(self, batch: Array) -> Callable[[], object]:
        with runtime_errors(f"{self.artifact.path}: LiteRT failed", kinds=REFUSALS):
            if len(batch) != self._allocated:
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
                self._allocated = len(batch)
            self._interpreter.set_tensor(self._input, batch)
        return self._invoke

    def _invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except REFUSALS as error:
            raise RunFailed(f"{self.artifact.path}: LiteRT failed ({in_one_line(error)}); export it again") from error

    def __exit__(self, *_error: object) -> None:
        """Release the interpreter."""
        self._interpreter = None


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of a .tflite file; raises ArtifactError."""
    inputs, outputs = codecs(path)
    return tuple(codec.spec for codec in inputs), tuple(codec.spec for codec in outputs)


def codecs(path: Path) -> tuple[list[TensorCodec], list[TensorCodec]]:
    """Return codecs of the inputs and outputs of a .tflite file; raises ArtifactError."""
    litert = load_runtime()
    broken = f"{path}: not a TFLite model, or a truncated one"
    with translated(lambda reason: ArtifactError(f"{broken} ({reason}); export it again")):
        with quiet_stderr():
            interpreter = litert.Interpreter(model_path=str(path))
        refuse_huge(interpreter, path)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return [codec_of(detail) for detail in inputs], [codec_of(detail) for detail in outputs]


def refuse_huge(interpreter: Interpreter, path: Path) -> None:
    """Raise ArtifactError for a file whose tensors together take more than MOST_BYTES; call it before allocation."""
    sizes = {
        detail["name"]: prod(map(int, detail["shape"])) * np.dtype(detail["dtype"]).itemsize
        for detail in interpreter.get_tensor_details()
    }
    if sum(sizes.values()) > MOST_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        raise ArtifactError(
            f"{path}: its tensors take {sum(sizes.values()):,} bytes, over the limit of {MOST_BYTES:,} "
            f"({sizes[largest]:,} are those of {largest!r:.60}); export the model again"
        )


def _placement(interpreter: Interpreter) -> dict[str, int]:
    """Return how many parts of the graph XNNPACK runs, or how many operators run on built-in kernels.

    LiteRT lists DELEGATE among the operators of the file, and does not report which operators it replaces.
    """
    kinds = [operator["op_name"] for operator in interpreter._get_ops_details()]
    delegates = kinds.count("DELEGATE")
    return {"XNNPACK": delegates} if delegates else {"builtin": len(kinds)}


def load_runtime() -> ModuleType:
    """Return LiteRT's module of interpreters; raises TargetUnavailable."""
    return required_module("ai_edge_litert.interpreter", "ai-edge-litert")


def codec_of(detail: dict[str, Any]) -> TensorCodec:
    """Return the codec of a tensor from the interpreter's description."""
    shape = tuple(int(axis) for axis in detail.get("shape_signature", detail["shape"]))
    scale, zero_point = detail["quantization"]
    # The interpreter gives 0, 0 for a tensor without a scale.
    known = (float(scale), int(zero_point)) if scale else ()
    return TensorCodec(TensorSpec(detail["name"], shape, np.dtype(detail["dtype"]).name, *known))
