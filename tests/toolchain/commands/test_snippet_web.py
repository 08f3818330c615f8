"""The page that `glyphpress snippet --for web` prints, served and opened in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from targets.artifact import Artifact
from targets.browser import BrowserTarget
from targets.browser.chromium import FLAGS, PACKAGES, executable
from targets.metadata import load_artifact
from tests.fixtures.digit_files import NAMES, digit_files
from tests.fixtures.scans import answers_of, close, expected, write_kinds, write_scans
from tests.fixtures.small_readers import integer_reader
from toolchain.commands.snippet import LANGUAGES, snippet
from toolchain.core.errors import UsageProblem

STATE = BrowserTarget().probe()
needs_browser = pytest.mark.skipif(not STATE.ok, reason=f"no browser ({STATE.reason}): pages NOT run")
FLOAT, INTEGERS, TFLITE = NAMES[0], "integers.onnx", NAMES[3]
ELSEWHERE = "kitchen.test"
"""A name of this machine that a browser does not take for it."""


class Quiet(SimpleHTTPRequestHandler):
    """The handler of `python -m http.server`, without its log."""

    def log_message(self, *_words: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model files, their pages, and what npm installs."""
    folder = tmp_path_factory.mktemp("site")
    digit_files(folder)
    integer_reader(folder / INTEGERS)
    for package in {package for packages in PACKAGES.values() for package in packages}:
        installed = folder / "node_modules" / package.name
        installed.parent.mkdir(parents=True, exist_ok=True)
        installed.symlink_to(package.fetch())
    return folder


@pytest.fixture(scope="module")
def port(site: Path) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
        chromium = playwright.chromium.launch(executable_path=executable(), args=flags)
        yield chromium
        chromium.close()


Opener = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, site: Path, port: int) -> Iterator[Opener]:
    """A function that writes and opens the page of a file, and waits until it is ready or says why it is not."""
    complaints: list[str] = []

    def opened(artifact: Artifact, host: str = "127.0.0.1") -> Any:
        (site / f"{artifact.path.name}.html").write_text(snippet(artifact, "web"))
        address = f"http://{host}:{port}/"
        page = browser.new_page()
        page.on("request", lambda asked: None if asked.url.startswith((address, "blob:", "data:")) else leave(asked))
        page.goto(address + quote(f"{artifact.path.name}.html"))
        page.wait_for_function("!document.querySelector('[role=status]').textContent.startsWith('Loading')")
        return page

    def leave(asked: Any) -> None:
        complaints.append(asked.url)

    yield opened
    for context in browser.contexts:
        context.close()
    assert complaints == [], "nothing is asked of another server"


def shown(page: Any, count: int) -> list[str]:
    """Return the lines of the page's list when there are so many."""
    page.wait_for_function(f"document.querySelectorAll('li').length === {count}")
    lines: list[str] = page.locator("li").all_inner_texts()
    return lines


@needs_browser
@pytest.mark.parametrize("name", [FLOAT, INTEGERS, TFLITE])
def test_a_page_reads_as_glyphpress_does(opened: Opener, site: Path, name: str, tmp_path: Path) -> None:
    page = opened(load_artifact(site / name))
    assert page.inner_text("[role=status]") == f"{name} is ready."
    paths = sorted(write_scans(tmp_path).iterdir())
    page.set_input_files("input", paths)
    wanted = answers_of(expected(site / name, tmp_path))
    read = answers_of(shown(page, len(paths)))
    assert read == [(Path(path).name, answer, close(share)) for path, answer, share in wanted]
    assert len({answer for _, answer, _ in read}) == 10


@needs_browser
def test_a_page_opens_pictures_of_every_kind_and_says_what_it_cannot_read(
    opened: Opener, site: Path, tmp_path: Path
) -> None:
    wanted = answers_of(expected(site / FLOAT, write_kinds(tmp_path)))
    near = {Path(path).name: (answer, pytest.approx(share, abs=0.5)) for path, answer, share in wanted}
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    (tmp_path / "words.png").write_text("no picture")
    refused = {
        "blank.png": "there is no ink in it",
        "deep.png": "it has 16 bits of gray, which browsers cut; save it with 8 bits",
        "words.png": "this browser reads no picture in it",
    }
    page = opened(load_artifact(site / FLOAT))
    paths = sorted(tmp_path.iterdir())
    # Files that are dropped on the page come by another way than those that are chosen.
    page.evaluate(
        """(files) => {
          const dataTransfer = new DataTransfer();
          for (const [name, bytes] of files) dataTransfer.items.add(new File([Uint8Array.from(bytes)], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [[path.name, list(path.read_bytes())] for path in paths],
    )
    lines = dict(line.split(": ", 1) for line in shown(page, len(paths)))
    assert {name: lines.pop(name) for name in refused} == refused
    assert list(lines) == [path.name for path in paths if path.name not in refused]
    for name, line in lines.items():
        ((_, answer, share),) = answers_of([f"{name}: {line}"])
        assert (answer, share) == near[name]


@needs_browser
def test_a_page_says_what_is_missing_and_what_it_did_not_check(opened: Opener, site: Path) -> None:
    def status(artifact: Artifact, host: str = "127.0.0.1") -> str:
        page = opened(artifact, host)
        said: str = page.inner_text("[role=status]")
        assert page.is_enabled("input") == ("is ready" in said)
        return said

    original = load_artifact(site / FLOAT)
    # A name and a class that HTML, JavaScript and addresses could take for something else.
    odd = replace(original, path=site / "a # 100%.onnx", classes=("</script><!--", *original.classes[1:]))
    assert status(odd).startswith("a # 100%.onnx is missing")
    odd.path.write_bytes(original.path.read_bytes())
    unchecked = "a # 100%.onnx is ready. Its digest was not checked: this page came over http from another machine."
    assert status(odd, ELSEWHERE) == unchecked
    odd.path.write_bytes(odd.path.read_bytes() + b"\0")
    assert "is not the file that this program was made for" in status(odd)
    (site / "node_modules").rename(site / "elsewhere")
    try:
        for name, package in ((FLOAT, "onnxruntime-web@"), (TFLITE, "@litertjs/core@")):
            assert f"Run `npm install {package}" in status(load_artifact(site / name))
    finally:
        (site / "elsewhere").rename(site / "node_modules")


def test_integers_that_a_page_cannot_hold_are_refused(tmp_path: Path) -> None:
    artifact = digit_files(tmp_path)[TFLITE]
    integers = replace(artifact.inputs[0], dtype="int8", scale=0.02, zero_point=-3)
    with pytest.raises(UsageProblem, match=r"is int8, and a program for web knows float32, uint8, int32; give another"):
        snippet(replace(artifact, inputs=(integers,)), "web")


def test_the_documentation_installs_the_release_that_the_page_is_tested_with() -> None:
    text = (Path(__file__).parents[3] / "docs/how-to/browser.md").read_text()
    assert f"npm install {LANGUAGES['web'].packages['tflite']}\n" in text
