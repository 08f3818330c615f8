"""The kiosk page in a real Chromium: what both models read, against the native runtimes, and who may ask for what."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from calibration.builtin import digits
from calibration.load import load
from targets import catalog
from targets.artifact import Artifact
from targets.browser import BrowserTarget
from targets.browser.chromium import executable
from targets.metadata import save_sidecar
from tests.fixtures.small_models import artifact, conv_net, integer_net
from toolchain.commands.kiosk import kiosk, kiosk_models
from toolchain.core.errors import StageError

STATE = BrowserTarget().probe()
pytestmark = pytest.mark.skipif(not STATE.ok, reason=f"no browser ({STATE.reason}): NOT checked")
GLYPH = digits().images[5].tobytes()
SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.5, 0.5), (0.42, 0.8)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    """A float and an int8 file with their sidecars; the first one wants its images turned and normalized."""
    folder = tmp_path_factory.mktemp("run")
    pair = (
        artifact(conv_net(folder / "net.float.onnx"), orientation="transpose", mean=0.25, std=0.5),
        artifact(integer_net(folder / "net.static-int8.onnx")),
    )
    for each in pair:
        save_sidecar(each)
    return pair


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `--save`."""
    return tmp_path_factory.mktemp("saved") / "wrong"


@pytest.fixture(scope="module")
def port(models: tuple[Artifact, Artifact], kept: Path) -> Iterator[int]:
    with kiosk(models[0].path.parent, port=0, save=kept) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser: Any, port: int, width: int, complaints: list[str]) -> Any:
    address = f"http://127.0.0.1:{port}/"
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(address) else complaints.append(asked.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return page


def draw(page: Any, *, upside_down: bool = False) -> None:
    box = page.locator("#pad").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN]
    if upside_down:
        places = [(box["x"] + (1 - x) * box["width"], box["y"] + (1 - y) * box["height"]) for x, y in SEVEN]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    page.wait_for_selector("body[data-busy=no]")


def test_both_models_read_what_the_native_runtime_reads(
    browser: Any, port: int, models: tuple[Artifact, Artifact]
) -> None:
    for width in (390, 1280):
        complaints: list[str] = []
        page = opened(browser, port, width, complaints)
        draw(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for reading, model, tolerance in zip(page.evaluate("kiosk.readings"), models, (1e-4, 0), strict=True):
            glyph = np.array(reading["pixels"], np.uint8).reshape(1, 28, 28)
            assert glyph.max() == 255
            with catalog.default_for(model.format).open(model) as native:
                logits = native.run(glyph)[0]
            np.testing.assert_allclose(reading["logits"], logits, rtol=0, atol=tolerance)
            assert reading["text"] == model.classes[int(logits.argmax())]
        assert page.locator("li").count() == 6
        page.keyboard.press("Control+z")
        assert "Write a character" in page.locator("#verdict").inner_text()
        draw(page)
        page.locator("#clear").click()
        assert page.evaluate("kiosk.strokes.length") == 0
        assert complaints == []
        page.close()


def test_what_is_marked_as_wrong_is_kept_and_read_wrong_again(
    browser: Any, port: int, models: tuple[Artifact, Artifact], kept: Path, glyphpress: Callable[..., Any]
) -> None:
    page = opened(browser, port, 1280, complaints := [])
    draw(page)
    pixels = bytes(page.evaluate("kiosk.readings[0].pixels"))
    answers = [reading["text"] for reading in page.evaluate("kiosk.readings")]
    right, other = [name for name in models[0].classes if name not in answers][:2]
    for text, outcome in (("12", "Type 1 character"), ("q", "no class q"), (right, "Kept as test/")):
        page.locator("#right").fill(text)
        page.keyboard.press("Enter")
        page.locator("output", has_text=outcome).wait_for()
    page.locator("#clear").click()
    draw(page, upside_down=True)
    page.locator("#right").fill(other)
    page.keyboard.press("Enter")
    page.locator("#marks p", has_text="2 characters are kept").wait_for()
    second = page.evaluate("kiosk.readings[0].text")
    page.close()
    assert complaints == []
    data = load(str(kept), "test")
    assert pixels in {image.tobytes() for image in data.images}
    done = glyphpress("evaluate", models[0].path, "--data", kept, "--json")
    assert done.code == 0, done.err
    confusion = np.array(json.loads(done.out)["metrics"]["confusion"])
    assert confusion.sum() == 2
    assert confusion[int(right), int(answers[0])] == confusion[int(other), int(second)] == 1


def posted(port: int, body: bytes = GLYPH, path: str = "/glyph?class=3", **changed: str | None) -> int:
    """Return the status of a POST as the page makes it, with some headers changed, or left out where they are None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/models.json")
    token = json.loads(connection.getresponse().read())["save"]["token"]
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Origin": f"http://127.0.0.1:{port}",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        "X-Kiosk-Token": token,
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    connection.putrequest("POST", path, skip_host=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_glyphs_are_taken_from_this_page_alone(port: int, kept: Path) -> None:
    before = sorted(kept.rglob("*"))
    strange = f"http://stranger.example:{port}"
    assert posted(port, Origin=strange) == 403
    assert posted(port, Origin=None) == 403
    assert posted(port, Origin=strange, Host=f"stranger.example:{port}") == 403
    assert posted(port, X_Kiosk_Token=None) == 403
    assert posted(port, X_Kiosk_Token="guess") == 403
    assert posted(port, path="/models.json") == 404
    assert posted(port, Content_Type="text/plain") == 415
    assert posted(port, GLYPH + b"\0") == 413
    assert posted(port, Content_Length="99999999999") == 413
    assert posted(port, Content_Length=None, Transfer_Encoding="chunked") == 413
    for path in ("/glyph", "/glyph?class=q", "/glyph?class=..%2F3", "/glyph?class="):
        assert posted(port, path=path) == 409, path
    assert posted(port, bytes(784)) == 409
    assert sorted(kept.rglob("*")) == before
    assert posted(port) == posted(port) == 200
    assert len(set(kept.rglob("*.png")) - set(before)) == 1


def test_without_a_folder_nothing_is_kept_and_the_page_says_how_to(
    browser: Any, models: tuple[Artifact, Artifact]
) -> None:
    with kiosk(models[0].path.parent, port=0) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        page = opened(browser, server.server_port, 1280, [])
        assert "--save DIR" in page.locator("#marks").inner_text()
        draw(page)
        answers = [reading["text"] for reading in page.evaluate("kiosk.readings")]
        page.locator("#right").fill(next(name for name in models[0].classes if name not in answers))
        page.locator("#marks button").click()
        assert "Marked as wrong: 1" in page.locator("output").inner_text()
        page.close()
        server.shutdown()


def test_a_browser_without_simd_is_told_what_to_use(browser: Any, port: int) -> None:
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#problem:not([hidden])")
    assert "no WebAssembly SIMD" in page.locator("#problem").inner_text()
    page.close()


def asked(port: int, path: str, host: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    answer.read()
    return answer


def test_only_this_machine_and_only_listed_files_are_answered(port: int) -> None:
    page = asked(port, "/")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert asked(port, "/", f"localhost:{port}").status == 200
    assert asked(port, "/models.json", f"stranger.example:{port}").status == 403
    for path in ("/kiosk/", "/net.float.onnx.json", "/model/2", "/model/../..", "/kiosk/../kiosk.py", "/page/"):
        assert asked(port, path).status == 404, path


def test_a_file_that_was_changed_since_its_press_is_not_sent_and_the_page_says_so(browser: Any, tmp_path: Path) -> None:
    for model in (artifact(conv_net(tmp_path / "net.float.onnx")), artifact(integer_net(tmp_path / "net.int8.onnx"))):
        save_sidecar(model)
    with (tmp_path / "net.int8.onnx").open("ab") as stream:
        stream.write(b"\0")
    with kiosk(tmp_path, port=0) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        assert asked(server.server_port, "/model/1").status == 409
        page = opened(browser, server.server_port, 1280, [])
        assert "not the bytes that net.int8.onnx.json describes" in page.locator("#problem").inner_text()
        page.close()
        server.shutdown()


def test_a_folder_without_models_and_a_port_in_use_are_one_line(
    glyphpress: Callable[..., Any], models: tuple[Artifact, Artifact], port: int, tmp_path: Path
) -> None:
    empty = glyphpress("kiosk", tmp_path)
    assert (empty.code, empty.err.count("\n")) == (3, 1)
    assert "holds no .onnx or .tflite file" in empty.err
    nowhere = glyphpress("kiosk", tmp_path / "nowhere")
    assert (nowhere.code, nowhere.err.count("\n")) == (3, 1)
    assert "no such folder" in nowhere.err
    taken = glyphpress("kiosk", models[0].path.parent, "--port", port)
    assert (taken.code, taken.err.count("\n")) == (3, 1)
    assert f"port {port} is in use" in taken.err
    with pytest.raises(StageError):
        kiosk_models(tmp_path)
