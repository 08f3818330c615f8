"""A session in a page: arrays go there and back, the timing loop and its clock are the page's own."""

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
from targets.host.runtime_session import RuntimeSession, TensorCodec, image_input, logits_output
from targets.litert.cpu import codecs
from targets.onnxruntime.cpu import batch_size
from targets.onnxruntime.single_provider import refuse_misplaced
from targets.onnxruntime.webgpu import PROVIDER
from targets.session import LARGEST, RuntimeFacts, TimingPlan

RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime-web", "ort": "onnxruntime-web", "tflite": "litert-js"}
"""Format -> the module of the page that runs it."""
CARRIED: dict[Format, tuple[str, ...]] = {
    **dict.fromkeys(("onnx", "ort"), ("float32", "float16", "uint8", "int8", "int32")),
    "tflite": ("float32", "uint8", "int32"),
}
"""Format -> the types of arrays that its runtime takes and gives in a page."""
OPEN = "async (options) => (await import('/page/model.mjs')).Model.open(options)"


Ended = Callable[["BrowserSession"], None]


class BrowserSession(RuntimeSession):
    """A file in a page's runtime; owns the page.

    Timed is what a page waits for: the promise of `run`, the copies into and out of the runtime's memory in it. The
    load includes the start of the runtime itself, which every page pays.
    """

    def __init__(
        self, artifact: Artifact, facts: RuntimeFacts, page: Page, device: str, *, ended: Ended | None = None
    ) -> None:
        """Load the file in the page, on `wasm` or `webgpu`; raises Misplaced, or RunFailed with what was said.

        ended: takes the session when its block ends, unless it has failed; by default it is closed.
        """
        self._page, self._ended, self._failed = page, ended, False
        inputs, outputs = _codecs(artifact)
        source, chosen = image_input(artifact, inputs), logits_output(artifact, outputs)
        sink = outputs[chosen]
        _check_carried(artifact, [source, sink])
        options = {
            "runtime": RUNTIMES[artifact.format],
            "file": base64.b64encode(artifact.path.read_bytes()).decode(),
            "device": device,
            "threads": facts.threads,
            "input": source.spec.name,
            "output": sink.spec.name,
            "outputIndex": chosen,
        }
        self.artifact, self.facts = artifact, facts
        told = self._asked(OPEN, options)
        if device == "webgpu":
            facts = replace(facts, placement=_placement(artifact, told, page.console))
        with self._believed():
            load_ns = _nanoseconds(told["loadNs"])
        super().__init__(artifact, facts, source, sink, batch=batch_size(artifact.path), load_ns=load_ns)
        self.first_run_ns = self._took_ns

    def _infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        self._prepared(batch)
        answer = self._asked("() => model.answer()")
        with self._believed():
            (dtype, shape, values), took = answer
            self._took_ns = _nanoseconds(took)
            if dtype not in CARRIED[self.artifact.format]:
                raise ValueError(f"an array of {dtype}")
            return np.frombuffer(base64.b64decode(values, validate=True), dtype).reshape(shape)

    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        content = base64.b64encode(np.ascontiguousarray(batch).tobytes()).decode()
        self._asked("(array) => model.place(array)", [batch.dtype.name, list(batch.shape), content])
        return lambda: self._asked("() => model.answer()")

    def _timed(self, plan: TimingPlan) -> tuple[NDArray[np.int64], int, Interrupted]:
        self.prepared(plan.batch)
        wanted = {
            "warmup": plan.warmup,
            "minRuns": plan.min_runs,
            "minSeconds": plan.min_seconds,
            "maxRuns": plan.max_runs,
            "inner": plan.inner,
        }
        told = self._asked(f"(plan) => model.time(plan, {RESOLUTIONS})", wanted)
        with self._believed():
            samples = np.array([_nanoseconds(one) for one in told["samples"]], np.int64)
            if len(samples) < plan.min_runs or type(told["inner"]) is not int or told["inner"] < 1:
                raise ValueError(f"{len(samples)} samples of {told['inner']} inferences")
            return samples, told["inner"], ()

    @contextmanager
    def _believed(self) -> Iterator[None]:
        """Raise RunFailed where the page's answer is not what its script gives."""
        try:
            yield
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            self._failed = True
            said = f"the page of {self.facts.runtime} answered what it should not ({error})"
            raise RunFailed(f"{self.artifact.path}: {said}; run it again") from error

    def _asked(self, script: str, argument: Any = None) -> Any:
        try:
            return self._page.evaluate(script, argument)
        except RunFailed as error:
            self._failed = True
            said = f"{self.facts.runtime} failed on it ({error})"
            raise RunFailed(f"{self.artifact.path}: {said}; export it again") from error

    def __exit__(self, *_error: object) -> None:
        """End the browser, or hand the session over to whoever keeps it."""
        if self._ended and not self._failed:
            self._ended(self)
        else:
            self.close()

    def close(self) -> None:
        """End the browser."""
        self._page.close()


def _nanoseconds(told: Any) -> int:
    """Return a duration that a page told; raises TypeError or ValueError on anything else."""
    if not isinstance(told, int | float) or isinstance(told, bool) or not 0 <= told <= LARGEST:
        raise ValueError(f"{told!r} is no duration")
    return round(told)


def _codecs(artifact: Artifact) -> tuple[list[TensorCodec], list[TensorCodec]]:
    """Return inputs and outputs; LiteRT.js resizes none, so an open batch is the one image that is allocated."""
    if artifact.format == "tflite":
        inputs, outputs = codecs(artifact.path)
        return [replace(codec, spec=replace(codec.spec, shape=_allocated(codec))) for codec in inputs], outputs
    return [TensorCodec(spec) for spec in artifact.inputs], [TensorCodec(spec) for spec in artifact.outputs]


def _allocated(codec: TensorCodec) -> tuple[int, ...]:
    return tuple(max(axis, 1) for axis in codec.spec.shape)


def _check_carried(artifact: Artifact, codecs: Iterable[TensorCodec]) -> None:
    carried = CARRIED[artifact.format]
    for codec in codecs:
        if codec.spec.dtype not in carried:
            raise RunFailed(
                f"{artifact.path}: browsers carry {', '.join(carried)} for this format, not the {codec.spec.dtype} of "
                f"{codec.spec.name}; export it with float input and output"
            )


def _placement(artifact: Artifact, told: dict[str, Any], console: list[str]) -> dict[str, int]:
    """Return how many nodes run on WebGPU; raises Misplaced where one does not.

    onnxruntime-web tells it in its log alone, and LiteRT.js only whether all of them do.
    """
    if artifact.format == "tflite":
        if not told["accelerated"]:
            raise Misplaced(
                f"{artifact.path}: LiteRT.js leaves nodes of it to the processor; take browser without webgpu"
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
    """Return operator and name of the nodes of each provider; both are empty where a provider has all of them."""
    nodes: dict[str, list[tuple[str, str]]] = {}
    place = ""
    for line in console:
        if head := re.search(r"placed on \[(\w+)\]\. Number of nodes: (\d+)", line):
            place = head[1]
            nodes[place] = [("", "")] * int(head[2]) if "All nodes" in line else []
        elif node := re.search(r"VerifyEachNodeIsAssignedToAnEp\]   (\w+) \((.*)\)", line):
            # Names with a token in them are ONNX Runtime's own.
            nodes[place].append((node[1], "" if "_token_" in node[2] else node[2]))
    return nodes
