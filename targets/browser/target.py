"""Target `browser`: .onnx files in onnxruntime-web and .tflite files in LiteRT.js, on a processor or through WebGPU."""

from __future__ import annotations

import shutil
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import ClassVar

from targets.artifact import Artifact, Format
from targets.browser.chromium import Page, executable
from targets.browser.packages import PACKAGES
from targets.browser.session import BrowserSession, OnExit
from targets.catalog import full_name
from targets.errors import RunFailed, TargetUnavailable
from targets.host import gpu_adapters
from targets.host.fresh_process import REPEATS, MemoryRise
from targets.host.local_target import LocalTarget
from targets.host.machine import cpu_name
from targets.host.runtime_session import resolved_threads
from targets.session import Cost, DeviceType, RuntimeFacts

PAGE = Path(__file__).with_name("page")
WEBGPU = ("--enable-unsafe-webgpu", "--ignore-gpu-blocklist", "--enable-features=Vulkan")
SWIFTSHADER = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
OPEN_PAGES = 8
"""Pages that stay open at most: the last used ones."""
ADAPTER = """async () => {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return null;
  const { vendor, architecture, device, description } = adapter.info;
  const name = description || [vendor, architecture, device].join(" ").trim();
  return { name, software: adapter.info.isFallbackAdapter };
}"""


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
        missing = [
            package.name for packages in PACKAGES.values() for package in packages if not package.folder.is_dir()
        ]
        if missing and not shutil.which("npm"):
            raise TargetUnavailable(f"npm is not here to fetch {', '.join(missing)}", "apt-get install npm")

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
