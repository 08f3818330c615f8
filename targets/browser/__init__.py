"""Target `browser`: .onnx files in onnxruntime-web and .tflite files in LiteRT.js, on a processor or through WebGPU.

Arrays are sent to the page and back; the page has its own timing loop and clock.
"""

from __future__ import annotations

import base64
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact, Format
from targets.browser.chromium import PACKAGES, Page, executable, require_packages
from targets.catalog import full_name
from targets.errors import Misplaced, RunFailed, TargetUnavailable
from targets.host import gpu_adapters
from targets.host.local_target import REPEATS, LocalTarget, MemoryRise
from targets.host.machine import cpu_name
from targets.host.runtime_session import (
    RESOLUTIONS,
    Array,
    Interrupted,
    RuntimeSession,
    TensorCodec,
    codecs_of,
    input_and_output,
    resolved_threads,
)
from targets.litert.cpu import codecs
from targets.onnxruntime.cpu import batch_size
from targets.onnxruntime.gpu import WEBGPU_PROVIDER, Nodes, refuse_misplaced
from targets.session import LARGEST, Cost, DeviceType, RuntimeFacts, TimingPlan

PAGE = Path(__file__).with_name("page")
WEBGPU = ("--enable-unsafe-webgpu", "--ignore-gpu-blocklist", "--enable-features=Vulkan")
SWIFTSHADER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
OPEN_PAGES = 8
"""Pages that stay open at most: the last used ones."""
ADAPTER = "async () => (await import('/page/adapter.mjs')).adapter()"


class BrowserTarget(LocalTarget):
    """The web runtimes in a headless Chromium; each file gets a new browser, so that no cache is warm.

    device: `wasm` runs on the processor with SIMD, `webgpu` on the GPU or, without one, on SwiftShader, which gives
    outputs and no latency. The page is cross-origin isolated: it has threads, and a clock of 5 us. Pages stay open for
    the next session of their file, since starting one takes a second, and close with the target.
    """

    formats: frozenset[Format]
    settings: ClassVar[dict[str, tuple[str, ...]]] = {"device": ("wasm", "webgpu")}

    def __init__(self, *, device: str = "wasm") -> None:
        """Take the setting; raises UnknownTarget."""
        self.name, self.device = full_name("browser", self.settings, device=device), device
        # An .ort file is optimized for CPUs.
        self.formats = frozenset(PACKAGES) - ({"ort"} if device == "webgpu" else set())
        self._open_sessions: list[BrowserSession] = []
        weakref.finalize(
            self, _close, self._open_sessions
        ).atexit = False  # when Python ends, Playwright closes what is left

    @property
    def cost(self) -> Cost:
        """Outputs alone where the browser will use SwiftShader, else latency."""
        return "outputs" if self._flags() == SWIFTSHADER else "latency"

    def require(self) -> None:
        """See `LocalTarget.require`: Playwright, a Chromium, and the runtimes or npm to fetch them."""
        executable()
        require_packages(PACKAGES)

    def open(self, artifact: Artifact, *, threads: int = 1) -> BrowserSession:
        """Load the file in a fresh browser with `threads` threads (0: all cores), or reuse the page that has it.

        Raises Misplaced where a node would run on the CPU instead of WebGPU.
        """
        for session in self._open_sessions:
            if (session.artifact, session.facts.threads) == (artifact, resolved_threads(threads)):
                self._open_sessions.remove(session)
                return session
        return self._session(self._page(artifact), artifact, threads, partial(_keep, self._open_sessions))

    def peak_memory(self, artifact: Artifact, *, threads: int = 1) -> int:
        """Return by how many bytes opening the file and a first inference raise the page's memory: median of three.

        As `Target.peak_memory`, but the start of the runtime is part of it, as it is for every page.
        """
        return int(median(self._rise(artifact, threads) for _ in range(REPEATS)))

    def _rise(self, artifact: Artifact, threads: int) -> int:
        page = self._page(artifact)
        rises: list[MemoryRise] = []
        peaks: list[int] = []
        for process in page.processes():
            with suppress(RunFailed):  # the reserve process may just end
                rises.append(MemoryRise(process))
        with self._session(page, artifact, threads):
            for rise in rises:
                with suppress(RunFailed):  # or have ended since
                    peaks.append(rise.bytes())
        if not peaks:
            raise RunFailed(f"{self.name}: the browser reports no memory; omit --memory")
        return max(peaks)

    def _page(self, artifact: Artifact) -> Page:
        packages = PACKAGES[artifact.format]
        return Page({"page": PAGE} | {package.path: package.fetch() for package in packages}, self._flags())

    def _session(self, page: Page, artifact: Artifact, threads: int, on_exit: OnExit | None = None) -> BrowserSession:
        runtime = PACKAGES[artifact.format][0]
        try:
            device, kind = self._device(page)
            facts = RuntimeFacts(
                target=self.name,
                runtime=runtime.name,
                version=f"{runtime.version}+chromium.{page.version}",
                device=device,
                threads=resolved_threads(threads),
                device_type=kind,
            )
            return BrowserSession(artifact, facts, page, self.device, on_exit=on_exit)
        except BaseException:
            page.close()
            raise

    def _flags(self) -> tuple[str, ...]:
        if self.device == "wasm":
            return ()
        try:
            return SWIFTSHADER if gpu_adapters.find().software else WEBGPU
        except TargetUnavailable:
            return SWIFTSHADER  # Chromium has its own loader and software adapter

    def _device(self, page: Page) -> tuple[str, DeviceType]:
        if self.device == "wasm":
            return cpu_name(), "cpu"
        adapter = page.evaluate(ADAPTER)
        if adapter is None:
            raise TargetUnavailable("this Chromium offers no WebGPU adapter", "see its page chrome://gpu")
        software = adapter["software"] or self._flags() == SWIFTSHADER
        return adapter["name"], "software" if software else "gpu"


def _keep(sessions: list[BrowserSession], session: BrowserSession) -> None:
    sessions.append(session)
    _close(sessions, beyond=OPEN_PAGES)


def _close(sessions: list[BrowserSession], *, beyond: int = 0) -> None:
    """Close the oldest sessions until at most `beyond` are left."""
    while len(sessions) > beyond:
        sessions.pop(0).close()


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
        source, sink, names = page_options(artifact)
        options = {
            **names,
            "file": base64.b64encode(artifact.path.read_bytes()).decode(),
            "device": device,
            "threads": facts.threads,
        }
        self.artifact, self.facts = artifact, facts
        opened = self._evaluate(OPEN, options)
        if device == "webgpu":
            facts = replace(facts, placement=_placement(artifact, opened, page.console))
        with self._checked_answer():
            load_ns = _nanoseconds(opened["loadNs"])
        super().__init__(artifact, facts, source, sink, batch=batch_size(artifact.path), load_ns=load_ns)
        self.first_run_ns = self._took_ns

    def _infer(self, batch: Array) -> Array:
        self._prepared(batch)
        answer = self._evaluate("() => model.answer()")
        with self._checked_answer():
            (dtype, shape, values), took = answer
            self._took_ns = _nanoseconds(took)
            if dtype not in ARRAY_TYPES[self.artifact.format]:
                raise ValueError(f"an array of {dtype}")
            return np.frombuffer(base64.b64decode(values, validate=True), dtype).reshape(shape)

    def _prepared(self, batch: Array) -> Callable[[], object]:
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

    def _evaluate(self, script: str, argument: object = None) -> Any:
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


def _nanoseconds(value: object) -> int:
    """Return a duration from a page as a whole number; raises ValueError for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError(f"{value!r} is not a duration")
    return round(value)


def page_options(artifact: Artifact) -> tuple[TensorCodec, TensorCodec, dict[str, Any]]:
    """Return input, output, and what the page's module of its runtime is told of them; raises RunFailed."""
    source, sink, index = input_and_output(artifact, *_codecs(artifact))
    _check_array_types(artifact, [source, sink])
    names = {"input": source.spec.name, "output": sink.spec.name, "outputIndex": index}
    return source, sink, {"runtime": RUNTIMES[artifact.format], **names}


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
    refuse_misplaced(WEBGPU_PROVIDER, nodes, artifact)
    return {WEBGPU_PROVIDER: len(nodes[WEBGPU_PROVIDER])}


def _logged(console: list[str]) -> Nodes:
    """Return the nodes of each provider; operators and names are empty where one provider has all nodes."""
    nodes: Nodes = {}
    provider = ""
    for line in console:
        if head := re.search(r"placed on \[(\w+)\]\. Number of nodes: (\d+)", line):
            provider = head[1]
            nodes[provider] = [("", "")] * int(head[2]) if "All nodes" in line else []
        elif node := re.search(r"VerifyEachNodeIsAssignedToAnEp\]   (\w+) \((.*)\)", line):
            # ONNX Runtime made the names with a token in them.
            nodes[provider].append((node[1], "" if "_token_" in node[2] else node[2]))
    return nodes
