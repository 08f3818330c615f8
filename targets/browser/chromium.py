"""A page in a headless Chromium, and the server of its files: our own, and the runtimes' npm packages.

Playwright drives the page in a thread of its own. The packages are pinned by digest and kept in the user's cache.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from targets.artifact import Format
from targets.errors import RunFailed, TargetUnavailable
from targets.host.cache import cache_folder, cached, run_program
from targets.host.runtime_session import required_module


@dataclass(frozen=True)
class Package:
    """A package of npm. integrity: SHA-512 of its archive in base64, as `npm` prints it. files: what pages need."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Return its folder in the cache, present or not."""
        return cache_folder(self._kind, self._made_of)

    @property
    def path(self) -> str:
        """Return the name as one part of a path, without `@` and slashes."""
        return self.name.removeprefix("@").replace("/", "-")

    @property
    def complete(self) -> bool:
        """Return whether its files are in the cache."""
        return all(path.is_file() and path.stat().st_size for path in (self.folder / name for name in self.files))

    def fetch(self) -> Path:
        """Return its folder, after fetching it from the registry where a file is missing; raises TargetUnavailable."""
        if not self.complete:
            # Such as after a sweeper of caches, which leaves folders without files.
            shutil.rmtree(self.folder, ignore_errors=True)
        return cached(self._kind, self._made_of, self._unpack, need=150_000_000)

    @property
    def _kind(self) -> str:
        return f"browser/{self.path}"

    @property
    def _made_of(self) -> str:
        return " ".join((self.integrity, *self.files))

    def _unpack(self, folder: Path) -> None:
        release = f"{self.name}@{self.version}"
        run_program(["npm", "pack", release, "--pack-destination", folder], f"fetching {release} with npm")
        (archive,) = folder.glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != self.integrity:
            raise TargetUnavailable(
                f"{release} has the wrong digest ({digest}), so it was changed", "use another registry"
            )
        with tarfile.open(archive) as content:
            for name in self.files:
                member = content.extractfile(f"package/{name}")
                assert member is not None, name  # its digest guarantees its content
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("wb") as stream:
                    shutil.copyfileobj(member, stream)
        archive.unlink()


ONNXRUNTIME_WEB = Package(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    (
        "dist/ort.wasm.bundle.min.mjs",
        "dist/ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm",
        "dist/ort.webgpu.bundle.min.mjs",
        "dist/ort-wasm-simd-threaded.asyncify.mjs",
        "dist/ort-wasm-simd-threaded.asyncify.wasm",
    ),
)
LITERT_JS = Package(
    "@litertjs/core",
    "2.5.3",
    "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    (
        "dist/index.js",
        "wasm/litert_wasm_internal.js",
        "wasm/litert_wasm_internal.wasm",
        "wasm/litert_wasm_threaded_internal.js",
        "wasm/litert_wasm_threaded_internal.wasm",
    ),
)
WASM_UTILS = Package(
    "@litertjs/wasm-utils",
    "2.5.3",
    "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
    ("dist/index.js",),
)
PACKAGES: dict[Format, tuple[Package, ...]] = {
    "onnx": (ONNXRUNTIME_WEB,),
    "ort": (ONNXRUNTIME_WEB,),
    "tflite": (LITERT_JS, WASM_UTILS),
}
"""Format -> packages that run it, the runtime first."""


def require_packages(formats: Iterable[Format]) -> None:
    """Raise TargetUnavailable where a runtime of these formats is not in the cache, and there is no npm to fetch it."""
    packages = {package.name: package for kind in formats for package in PACKAGES[kind]}
    missing = [package.name for package in packages.values() if not package.complete]
    if missing and not shutil.which("npm"):
        raise TargetUnavailable(f"npm is not here to fetch {', '.join(missing)}", "apt-get install npm")


MISSING_FILE = "/nonexistent"


class Files(SimpleHTTPRequestHandler):
    """Serves files of some folders, which are named by the first part of the path."""

    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012 (as the base class declares it)
        ".html": "text/html",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }
    folders: Mapping[str, Path]

    def translate_path(self, path: str) -> str:
        """Return the file of a path, or one that is not there."""
        first, _, rest = path.lstrip("/").partition("/")
        return str(self.folders[first] / rest) if first in self.folders and ".." not in rest else MISSING_FILE

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        # Isolated pages can use threads with shared memory, and have a clock of 5 us instead of 100
        # (https://www.w3.org/TR/hr-time-3/#dfn-coarsen-time).
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_words: object) -> None:
        """Log nothing."""


@contextmanager
def serve_files(folders: Mapping[str, Path]) -> Iterator[str]:
    """Serve `http://127.0.0.1:PORT/NAME/...` from these folders on the loopback interface; yields the address."""
    handler = type("Files", (Files,), {"folders": folders})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
FLAGS = (
    # The root user of a container cannot make a sandbox; the page is our own and opens nothing else.
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No reports of failed requests and followed links; Playwright turns off metrics and crash reports.
    "--disable-domain-reliability",
    "--no-pings",
)
TIMEOUT_MS = 60_000
CONSOLE_LINES = 20_000
"""Lines of a page's console that are kept."""


def executable() -> str:
    """Return the path of the browser: GLYPHPRESS_CHROMIUM, else the system's, else Playwright's own.

    Raises TargetUnavailable where there is none, or no Playwright to drive it.
    """
    named = os.environ.get("GLYPHPRESS_CHROMIUM")
    if named and not shutil.which(named):
        raise TargetUnavailable(f"GLYPHPRESS_CHROMIUM is not a program ({named})", "correct it, or unset it")
    required_module("playwright", "playwright")
    names = (named,) if named else NAMES
    program = next(filter(None, map(shutil.which, names)), None) or _bundled()
    if not program:
        raise TargetUnavailable(
            "no Chromium is installed", "apt-get install chromium, or `playwright install chromium`"
        )
    return program


def _bundled() -> str | None:
    """Return the browser that `playwright install` put into the user's cache, or None."""
    try:
        home = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache/ms-playwright")
    except RuntimeError:
        # There is no home.
        return None
    builds = [
        path for name in ("chrome", "headless_shell", "chrome-headless-shell") for path in home.glob(f"*/*/{name}")
    ]
    return str(max(builds, key=lambda path: path.stat().st_mtime)) if builds else None


class Worker:
    """A thread that runs calls, one after another.

    This is no executor, whose `submit` holds a lock shared by all executors: if garbage is collected inside it, and a
    browser that is garbage closes by another `submit`, that waits for the lock for ever. A SimpleQueue is reentrant.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.ended = False
        Thread(target=self._work, name="browser", daemon=True).start()

    def run(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Run a call in the thread, and return or raise what it does; raises RuntimeError after `end`."""
        if self.ended:
            raise RuntimeError("this browser was closed")
        done: Future[Any] = Future()
        self._calls.put((done, partial(call, *arguments)))
        return done.result()

    def end(self) -> None:
        """Let the thread end after the calls that are queued."""
        self.ended = True
        self._calls.put(None)

    def _work(self) -> None:
        while item := self._calls.get():
            done, call = item
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 (`run` raises it)
                done.set_exception(error)
            # While the thread waits it must not keep objects of the call alive.
            del item, done, call


class Page:
    """The page `/page/index.html`, served from folders by name; `close` ends the browser.

    Playwright's synchronous interface belongs to one thread, in which it runs an event loop, so every page has its own
    thread. console: what the page has printed.
    """

    def __init__(self, folders: Mapping[str, Path], flags: tuple[str, ...] = ()) -> None:
        """Start server and browser; raises TargetUnavailable."""
        self.console: list[str] = []
        self._worker = Worker()
        self._open = ExitStack()
        program = executable()
        address = self._open.enter_context(serve_files(folders))
        try:
            self._worker.run(self._start, program, (*FLAGS, *flags), address)
        except BaseException:
            self.close()
            raise

    def _start(self, program: str, flags: tuple[str, ...], address: str) -> None:
        from playwright.sync_api import Error, sync_playwright

        try:
            playwright = self._open.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(executable_path=program, args=list(flags))
            self._open.callback(self._browser.close)
            self.version = self._browser.version
            self._page = self._browser.new_page()
            self._page.set_default_timeout(TIMEOUT_MS)
            self._page.on("console", lambda message: self._keep_line(message.text))
            self._page.goto(f"{address}/page/index.html")
        except Error as error:
            raise TargetUnavailable(
                f"{program} does not start ({_line(error)})", "run it by hand to see why"
            ) from error

    def _keep_line(self, text: str) -> None:
        if len(self.console) < CONSOLE_LINES:
            self.console.append(text)

    def evaluate(self, script: str, argument: object = None) -> Any:
        """Call a JavaScript function in the page and return its result; raises RunFailed with the error it threw."""
        return self._worker.run(self._evaluate, script, argument)

    def _evaluate(self, script: str, argument: object) -> Any:
        from playwright.sync_api import Error

        try:
            return self._page.evaluate(script, argument)
        except Error as error:
            raise RunFailed(_line(error)) from error

    def processes(self) -> list[str]:
        """Return the ids of renderer processes: that of this page, and one that Chromium keeps in reserve."""
        renderers: list[str] = self._worker.run(self._renderers)
        return renderers

    def _renderers(self) -> list[str]:
        processes = self._browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        return [str(process["id"]) for process in processes if process["type"] == "renderer"]

    def close(self) -> None:
        """End browser and server; a second call does nothing."""
        if not self._worker.ended:
            try:
                self._worker.run(self._open.close)
            finally:
                self._worker.end()


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    return " ".join(" ".join(lines).removeprefix("Page.evaluate: ").removeprefix("Error: ").split())[:300]
