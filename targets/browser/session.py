"""A session in a page: arrays are sent there and back; the page has its own timing loop and clock."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, Format
from targets.browser.chromium import Page
from targets.errors import Misplaced, RunFailed
from targets.host.clock import RESOLUTIONS, Interrupted
from targets.host.runtime_session import RuntimeSession, TensorCodec, codecs_of, input_and_output
from targets.litert.cpu import codecs
from targets.onnxruntime.cpu import batch_size
from targets.onnxruntime.single_provider import refuse_misplaced
from targets.onnxruntime.webgpu import PROVIDER
from targets.session import LARGEST, RuntimeFacts, TimingPlan

RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime-web", "ort": "onnxruntime-web", "tflite": "litert-js"}
"""Format -> the module of the page that runs it."""
ARRAY_TYPES: dict[Format, tuple[str, ...]] = {
    **dict.fromkeys(("onnx", "ort"), ("float32", "float16", "uint8", "int8", "int32")),
    "tflite": ("float32", "uint8", "int32"),
}
"""Format -> array types that its runtime takes and returns in a page."""
OPEN = "async (options) => (await import('/page/model.mjs')).Model.open(options)"


OnExit = Callable[["BrowserSession"], None]


class BrowserSession(RuntimeSession):
    """A file in a page's runtime; owns the page.

    The time of an inference is that of the promise of `run`, with the copies into and out of the runtime's memory. The
    load includes the start of the runtime, which every page pays.
    """

    def __init__(
        self, artifact: Artifact, facts: RuntimeFacts, page: Page, device: str, *, on_exit: OnExit | None = None
    ) -> None:
        """Load the file in the page, on `wasm` or `webgpu`; raises Misplaced, or RunFailed with the page's error.

        on_exit: takes the session when its block ends, unless it has failed; by default it is closed.
        """
        self._page, self._on_exit, self._failed = page, on_exit, False
        source, sink, index = input_and_output(artifact, *_codecs(artifact))
        _check_array_types(artifact, [source, sink])
        options = {
            "runtime": RUNTIMES[artifact.format],
            "file": base64.b64encode(artifact.path.read_bytes()).decode(),
            "device": device,
            "threads": facts.threads,
            "input": source.spec.name,
            "output": sink.spec.name,
            "outputIndex": index,
        }
        self.artifact, self.facts = artifact, facts
        opened = self._evaluate(OPEN, options)
        if device == "webgpu":
            facts = replace(facts, placement=_placement(artifact, opened, page.console))
        with self._checked_answer():
            load_ns = _nanoseconds(opened["loadNs"])
        super().__init__(artifact, facts, source, sink, batch=batch_size(artifact.path), load_ns=load_ns)
        self.first_run_ns = self._took_ns

    def _infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        self._prepared(batch)
        answer = self._evaluate("() => model.answer()")
        with self._checked_answer():
            (dtype, shape, values), took = answer
            self._took_ns = _nanoseconds(took)
            if dtype not in ARRAY_TYPES[self.artifact.format]:
                raise ValueError(f"an array of {dtype}")
            return np.frombuffer(base64.b64decode(values, validate=True), dtype).reshape(shape)

    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        content = base64.b64encode(np.ascontiguousarray(batch).tobytes()).decode()
        self._evaluate("(array) => model.place(array)", [batch.dtype.name, list(batch.shape), content])
        return lambda: self._evaluate("() => model.answer()")

    def _timed(self, plan: TimingPlan) -> tuple[NDArray[np.int64], int, Interrupted]:
        self.prepared(plan.batch)
        settings = {
            "warmup": plan.warmup,
            "minRuns": plan.min_runs,
            "minSeconds": plan.min_seconds,
            "maxRuns": plan.max_runs,
            "inner": plan.inner,
        }
        answer = self._evaluate(f"(plan) => model.time(plan, {RESOLUTIONS})", settings)
        with self._checked_answer():
            samples = np.array([_nanoseconds(sample) for sample in answer["samples"]], np.int64)
            if len(samples) < plan.min_runs or type(answer["inner"]) is not int or answer["inner"] < 1:
                raise ValueError(f"{len(samples)} samples of {answer['inner']} inferences")
            return samples, answer["inner"], ()

    @contextmanager
    def _checked_answer(self) -> Iterator[None]:
        """Raise RunFailed where the block finds that the page's answer is not what its script returns."""
        try:
            yield
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            self._failed = True
            problem = f"the page of {self.facts.runtime} gave an invalid answer ({error})"
            raise RunFailed(f"{self.artifact.path}: {problem}; run it again") from error

    def _evaluate(self, script: str, argument: Any = None) -> Any:
        try:
            return self._page.evaluate(script, argument)
        except RunFailed as error:
            self._failed = True
            raise RunFailed(
                f"{self.artifact.path}: {self.facts.runtime} failed on it ({error}); export it again"
            ) from error

    def __exit__(self, *_error: object) -> None:
        """Pass the session to `on_exit`, or end the browser."""
        if self._on_exit and not self._failed:
            self._on_exit(self)
        else:
            self.close()

    def close(self) -> None:
        """End the browser."""
        self._page.close()


def _nanoseconds(value: Any) -> int:
    """Return a duration from a page as a whole number; raises ValueError for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError(f"{value!r} is not a duration")
    return round(value)


def _codecs(artifact: Artifact) -> tuple[list[TensorCodec], list[TensorCodec]]:
    """Return inputs and outputs; LiteRT.js cannot resize, so a dynamic batch is the one image that is allocated."""
    if artifact.format == "tflite":
        inputs, outputs = codecs(artifact.path)
        return [replace(codec, spec=replace(codec.spec, shape=_allocated(codec))) for codec in inputs], outputs
    return codecs_of(artifact)


def _allocated(codec: TensorCodec) -> tuple[int, ...]:
    return tuple(max(axis, 1) for axis in codec.spec.shape)


def _check_array_types(artifact: Artifact, codecs: Iterable[TensorCodec]) -> None:
    array_types = ARRAY_TYPES[artifact.format]
    for codec in codecs:
        if codec.spec.dtype not in array_types:
            raise RunFailed(
                f"{artifact.path}: browsers take arrays of {', '.join(array_types)} for this format, "
                f"not {codec.spec.dtype} as {codec.spec.name} has; export it with float input and output"
            )


def _placement(artifact: Artifact, opened: dict[str, Any], console: list[str]) -> dict[str, int]:
    """Return how many nodes run on WebGPU; raises Misplaced where one does not.

    onnxruntime-web reports it in its log alone, and LiteRT.js only whether all nodes do.
    """
    if artifact.format == "tflite":
        if not opened["accelerated"]:
            raise Misplaced(
                f"{artifact.path}: LiteRT.js runs some of its nodes on the CPU; take browser without webgpu"
            )
        return {"WebGPU": 1}
    nodes = _logged(console)
    if not nodes:
        raise RunFailed(
            f"{artifact.path}: onnxruntime-web did not report where its nodes run, so its answers cannot be trusted"
        )
    refuse_misplaced(PROVIDER, nodes, artifact)
    return {PROVIDER: len(nodes[PROVIDER])}


def _logged(console: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Return for each provider operator and name of its nodes; both are empty where one provider has all nodes."""
    nodes: dict[str, list[tuple[str, str]]] = {}
    provider = ""
    for line in console:
        if head := re.search(r"placed on \[(\w+)\]\. Number of nodes: (\d+)", line):
            provider = head[1]
            nodes[provider] = [("", "")] * int(head[2]) if "All nodes" in line else []
        elif node := re.search(r"VerifyEachNodeIsAssignedToAnEp\]   (\w+) \((.*)\)", line):
            # ONNX Runtime made the names with a token in them.
            nodes[provider].append((node[1], "" if "_token_" in node[2] else node[2]))
    return nodes
