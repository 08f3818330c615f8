"""The kiosk page in a real Chromium: what both models read, against the native runtimes, and who may ask for what."""

from __future__ import annotations

import http.client
import json
import re
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.builtin import digits
from calibration.load import load
from calibration.words import cut
from targets import catalog
from targets.artifact import Artifact
from targets.browser import BrowserTarget
from targets.browser.chromium import FLAGS, executable
from tests.fixtures.digit_files import NAMES, digit_files
from tests.fixtures.pen import HEIGHT, WIDTH, Written, written_words
from tests.fixtures.reports import pressed_report
from tests.fixtures.viewed_pages import FAULTS
from toolchain.commands.kiosk import kiosk, kiosk_models
from toolchain.core.errors import StageError
from toolchain.evaluation.word_context import in_words

STATE = BrowserTarget().probe()
pytestmark = pytest.mark.skipif(not STATE.ok, reason=f"no browser ({STATE.reason}): NOT checked")
GLYPH = digits().images[5].tobytes()
Stroke = Sequence[tuple[float, float]]
SEVEN: Stroke = [(0.45, 0.25), (0.55, 0.25), (0.5, 0.5), (0.48, 0.8)]
DRAW = """async (words) => {
  const pad = document.querySelector("#pad"), { dataset } = document.body, answers = [];
  for (const strokes of words) {
    if (words.length > 1) kiosk.pad.clear();
    const box = pad.getBoundingClientRect();
    const fire = (type, [x, y]) => pad.dispatchEvent(new PointerEvent(type, {
      pointerId: 7, bubbles: true, clientX: box.left + x * box.width, clientY: box.top + y * box.height,
    }));
    for (const stroke of strokes) {
      fire("pointerdown", stroke[0]);
      for (const point of stroke.slice(1)) fire("pointermove", point);
      fire("pointerup", stroke.at(-1));
    }
    while (dataset.busy === "yes") await new Promise((done) => setTimeout(done, 5));
    answers.push({
      glyphs: kiosk.writing.characters.map(({ glyph }) => [...glyph.pixels]),
      readings: kiosk.readings,
      shown: [...document.querySelectorAll(".reading")].map((line) => line.innerText),
      marked: [...document.querySelectorAll(".card")].map((card) => card.matches(".differ")),
      marks: document.querySelectorAll("mark").length,
      verdict: document.querySelector("#verdict").innerText,
    });
  }
  return answers;
}"""
"""Draws words, one after another, and returns what the page holds and shows of each."""
SOFTWARE_GPU = """Object.defineProperty(Navigator.prototype, "gpu", {
  value: { requestAdapter: async () => ({ info: { description: "SwiftShader", isFallbackAdapter: true } }) },
})"""


WORDS = {word.text: word for word in written_words()}


@dataclass
class KioskPage:
    """A page of the kiosk (Playwright's), and everything that went wrong on it."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def draw(self, *strokes: Stroke) -> None:
        """Draw strokes, in shares of the sheet, and wait until they are read."""
        self.page.evaluate(DRAW, [[list(stroke) for stroke in strokes]])

    def write(self, *words: Written) -> list[dict[str, Any]]:
        """Write words on the middle of the sheet, one after another, and return what the page shows of each."""
        aspect = self.page.evaluate("kiosk.pad.width / kiosk.pad.height")
        size = min(1.5, 0.9 * aspect * HEIGHT / WIDTH)

        def placed(x: float, y: float) -> tuple[float, float]:
            return 0.5 + (x - WIDTH / 2) / HEIGHT * size / aspect, 0.5 + (y / HEIGHT - 0.5) * size

        strokes = [[[placed(*point) for point in stroke] for stroke in word.strokes] for word in words]
        shown: list[dict[str, Any]] = self.page.evaluate(DRAW, strokes)
        return shown

    def settle(self) -> None:
        """Wait until what is written is read."""
        self.page.wait_for_selector("body[data-busy=no]")

    def choose(self, *names: str) -> None:
        """Choose the files of both sides."""
        for side, name in enumerate(names):
            self.page.locator("select").nth(side).select_option(label=name)
            self.page.wait_for_selector(f"body[data-side{side}='{name}']")
        self.settle()

    def readings(self) -> list[dict[str, Any]]:
        """Return what both models read: text and characters."""
        found: list[dict[str, Any]] = self.page.evaluate("kiosk.readings")
        return found

    def glyphs(self) -> NDArray[np.uint8]:
        """Return the glyphs of the characters, uint8 [N, 28, 28]."""
        pixels = self.page.evaluate("kiosk.writing.characters.map((each) => [...each.glyph.pixels])")
        return np.array(pixels, np.uint8).reshape(-1, 28, 28)

    def clear(self) -> None:
        """Clear the sheet."""
        self.page.locator("#clear").click()
        self.settle()


@contextmanager
def served(*arguments: Any, **settings: Any) -> Iterator[int]:
    """Serve a kiosk in a thread; yields its port."""
    with kiosk(*arguments, port=0, **settings) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A float and an int8 file of both formats, of one model of digits."""
    return digit_files(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run_dir(files: dict[str, Artifact]) -> Path:
    return next(iter(files.values())).path.parent


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `--save`."""
    return tmp_path_factory.mktemp("saved") / "wrong"


@pytest.fixture(scope="module")
def port(run_dir: Path, kept: Path) -> Iterator[int]:
    with served(run_dir, save=kept) as number:
        yield number


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        yield chromium
        chromium.close()


def opened(browser: Any, port: int, script: str = "", **settings: Any) -> KioskPage:
    """Open the page of a kiosk. script: runs before those of the page."""
    address = f"http://127.0.0.1:{port}/"
    page = browser.new_page(viewport={"width": 1280, "height": 900}, **settings)
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(address) else complaints.append(asked.url))
    page.add_init_script(script)
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return KioskPage(page, complaints)


@pytest.fixture(scope="module")
def shared(browser: Any, port: int) -> KioskPage:
    return opened(browser, port)


@pytest.fixture
def page(shared: KioskPage) -> Iterator[KioskPage]:
    """The page that most tests share, empty; nothing may go wrong on it."""
    shared.page.set_viewport_size({"width": 1280, "height": 900})
    shared.clear()
    yield shared
    assert shared.complaints == []
    assert shared.page.locator("#problem").inner_text() == ""


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_both_models_read_what_the_native_runtime_reads(page: KioskPage, files: dict[str, Artifact], kind: str) -> None:
    names = [name for name in files if name.endswith(kind)]
    page.choose(*names)
    page.draw(SEVEN)
    glyphs = np.concatenate([page.glyphs(), np.asarray(digits().images[:50])])
    for side, (name, tolerance) in enumerate(zip(names, (1e-4, 0), strict=True)):
        with catalog.default_for(files[name].format).open(files[name]) as native:
            logits = native.run(glyphs)
        (character,) = page.readings()[side]["characters"]
        np.testing.assert_allclose(character["logits"], logits[0], rtol=0, atol=tolerance)
        assert character["read"] == character["answers"][0][0] == files[name].classes[int(logits[0].argmax())]
        script = """async ([side, glyphs]) => {
          const answers = [];
          const model = kiosk.loaded[side];
          for (const pixels of glyphs) answers.push(await model.infer(Uint8Array.from(pixels), 1));
          return answers.map(({ logits }) => logits);
        }"""
        answers = page.page.evaluate(script, [side, glyphs.reshape(-1, 784).tolist()])
        np.testing.assert_allclose(answers, logits, rtol=0, atol=tolerance)
    assert "WebAssembly SIMD" in page.page.locator("#ran").inner_text()


def test_thirty_written_words_are_cut_and_read_as_natively(page: KioskPage, files: dict[str, Artifact]) -> None:
    names = ("digits.float.onnx", "digits.static-int8.onnx")
    page.choose(*names)
    read: list[list[dict[str, Any]]] = [[], []]
    glyphs, differ = [], 0
    assert len(WORDS) > 30
    for text, word in zip(WORDS, page.write(*WORDS.values()), strict=True):
        glyphs.append(np.array(word["glyphs"], np.uint8).reshape(-1, 28, 28))
        for side, reading in enumerate(word["readings"]):
            assert [len(part) for part in reading["text"].split(" ")] == [len(part) for part in text.split(" ")], text
            assert reading["text"].replace(" ", "") == "".join(each["read"] for each in reading["characters"])
            assert word["shown"][side] == reading["text"]
            read[side] += reading["characters"]
        both = zip(*(each["characters"] for each in word["readings"]), strict=True)
        unlike = [first["read"] != second["read"] for first, second in both]
        assert word["marked"] == unlike
        assert word["marks"] == 2 * sum(unlike)
        assert word["verdict"].startswith("They differ" if any(unlike) else "Both read")
        differ += sum(unlike)
    assert differ > 0, "some letters are so unlike a digit that the int8 file reads another one"
    for name, characters, tolerance in zip(names, read, (1e-4, 0), strict=True):
        with catalog.default_for("onnx").open(files[name]) as native:
            logits = native.run(np.concatenate(glyphs))
        np.testing.assert_allclose([each["logits"] for each in characters], logits, rtol=0, atol=tolerance)
        assert [each["read"] for each in characters] == [str(label) for label in logits.argmax(1)]


def test_the_page_cuts_its_sheet_as_the_shell_cuts_a_picture(page: KioskPage) -> None:
    page.write(WORDS["BUS 59"])
    width, height, pixels = page.page.evaluate(
        """() => {
          const { width, height, pixels } = kiosk.pad.picture();
          return [width, height, [...pixels].map((level) => String.fromCharCode(level)).join("")];
        }"""
    )
    sheet = np.frombuffer(pixels.encode("latin-1"), np.uint8).reshape(height, width)
    characters = cut(sheet).characters
    told = page.page.evaluate("kiosk.writing.characters.map(({ box, space }) => [box, space])")
    assert told == [[list(each.box), each.space] for each in characters]
    assert [each.space for each in characters] == [False, False, False, True, False]
    assert page.readings()[0]["text"][3] == " "
    assert np.abs(page.glyphs().astype(int) - np.stack([each.glyph for each in characters])).max() <= 2


def test_look_alikes_in_a_word_are_told_apart_as_in_the_shell(page: KioskPage) -> None:
    random = np.random.default_rng(3)
    classes = tuple("0123456789OISZBab")
    chances = random.dirichlet(np.full(len(classes), 0.2), 60)
    words = [list(range(start, start + 5)) for start in range(0, 60, 5)]
    script = "async (told) => (await import('/kiosk/reading.mjs')).inWords(...told)"
    told = page.page.evaluate(script, [chances.tolist(), words, classes])
    assert told == in_words(chances, words, classes).tolist()
    assert told != chances.argmax(1).tolist()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_readable_at_any_width_and_in_the_dark(page: KioskPage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 900})
    page.write(WORDS["40718"])
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        assert page.page.evaluate(FAULTS) == []
    page.page.emulate_media(color_scheme="light")


def test_undo_clear_and_the_keyboard(page: KioskPage) -> None:
    first, second = ([(x + shift, y) for x, y in SEVEN] for shift in (0.0, 0.2))
    box = page.page.locator("#pad").bounding_box()
    for stroke in (first, second):
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.page.mouse.move(*places[0])
        page.page.mouse.down()
        for place in places[1:]:
            page.page.mouse.move(*place, steps=3)
        page.page.mouse.up()
    page.settle()
    assert page.page.evaluate("kiosk.pad.strokes.length") == 2
    page.page.keyboard.press("Control+z")
    page.settle()
    assert page.page.evaluate("kiosk.pad.strokes.length") == 1
    page.page.locator("#undo").click()
    page.settle()
    assert "Write something" in page.page.locator("#verdict").inner_text()
    assert page.page.locator("#characters").is_hidden()
    assert page.page.locator("#marks").is_hidden()
    page.page.locator("#pad").focus()
    for key in (" ", *["ArrowDown"] * 8, " ", *["ArrowRight"] * 3):
        page.page.keyboard.press(key)
    page.settle()
    assert page.page.evaluate("kiosk.pad.strokes.map(({ points }) => points.length)") == [9]
    assert page.page.locator("#verdict").inner_text().startswith(("Both read", "They differ"))
    # Keys in a field are the field's.
    page.page.locator("#right").fill("1")
    page.page.keyboard.press("Control+z")
    page.page.keyboard.press("Escape")
    assert page.page.evaluate("kiosk.pad.strokes.length") == 1
    page.page.locator("#pad").focus()
    page.page.keyboard.press("Escape")
    page.settle()
    assert page.page.evaluate("kiosk.pad.strokes.length") == 0
    assert page.page.locator("#undo").get_attribute("aria-disabled") == "false"
    page.page.locator("#undo").click()
    page.settle()
    assert page.page.evaluate("kiosk.pad.strokes.map(({ points }) => points.length)") == [9], "clearing is taken back"
    page.clear()


def test_a_tap_is_a_dot(page: KioskPage) -> None:
    box = page.page.locator("#pad").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.settle()
    assert page.page.evaluate("kiosk.writing.characters.length") == 1
    page.clear()


def test_what_is_marked_as_wrong_is_kept_and_read_wrong_again(
    page: KioskPage, files: dict[str, Artifact], kept: Path, glyphpress: Callable[..., Any]
) -> None:
    page.choose("digits.float.onnx", "digits.static-int8.onnx")
    outcome = page.page.locator("output")
    page.draw(SEVEN)
    glyph, read = page.glyphs()[0].tobytes(), page.readings()[0]["text"]
    right, other = [name for name in "0123456789" if name not in {each["text"] for each in page.readings()}][:2]
    refused = [("12", "you typed 2"), ("q", "no class q"), (read, "what the models read")]
    slip = [(read, f"Kept: {read} in place of {right}."), (right, f"Kept: {right} in place of {read}.")]
    for text, said in (*refused, (right, f"Kept: {right}."), *slip):
        page.page.locator("#right").fill(text)
        page.page.keyboard.press("Enter")
        outcome.filter(has_text=said).wait_for()
    page.clear()
    page.draw([(1 - x, 1 - y) for x, y in SEVEN])
    second = page.readings()[0]["text"]
    page.page.locator("#characters summary").press("Enter")
    page.page.locator("#characters details input").fill(other)
    page.page.keyboard.press("Enter")
    outcome.filter(has_text=f"Kept: {other}.").wait_for()
    assert page.page.locator("#marks p").inner_text().startswith("2 characters kept in ")
    data = load(str(kept), "test")
    assert glyph in {image.tobytes() for image in data.images}
    done = glyphpress("evaluate", files["digits.float.onnx"].path, "--data", kept, "--json")
    assert done.code == 0, done.err
    confusion = np.array(json.loads(done.out)["metrics"]["confusion"])
    assert confusion.sum() == 2
    assert confusion[int(right), int(read)] == confusion[int(other), int(second)] == 1


def posted(port: int, body: bytes = GLYPH, path: str = "/glyph?class=3", token: str = "", **changed: str | None) -> int:
    """Return the status of a POST as the page makes it, with some headers changed, or left out where they are None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if not token:
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
    for path in ("/kiosk/", "/digits.float.onnx.json", "/model/9", "/model/../..", "/kiosk/../kiosk.py", "/page/"):
        assert asked(port, path).status == 404, path


def test_a_browser_without_simd_is_told_what_to_use(browser: Any, port: int) -> None:
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#problem:not([hidden])")
    assert "no WebAssembly SIMD" in page.locator("#problem").inner_text()
    page.close()


def test_a_changed_file_is_not_sent_and_without_a_folder_nothing_is_kept(browser: Any, tmp_path: Path) -> None:
    changed = digit_files(tmp_path)["digits.static-int8.onnx"].path
    with changed.open("ab") as stream:
        stream.write(b"\0")
    with served(tmp_path) as number:
        assert asked(number, "/model/2").status == 409
        page = opened(browser, number, SOFTWARE_GPU)
        assert "software one (SwiftShader), which is not used" in page.page.locator("#ran").inner_text()
        assert page.page.locator("#webgpu").is_hidden()
        assert f"not the bytes that {changed.name}.json describes" in page.page.locator("#problem").inner_text()
        page.draw(SEVEN)
        read = page.readings()[0]["text"]
        assert page.page.locator("#verdict").inner_text() == f"Only the float model runs: {read}"
        assert "--save DIR" in page.page.locator("#marks").inner_text()
        page.page.locator("#right").fill(str((int(read) + 1) % 10))
        page.page.locator("#marks button").click()
        page.page.locator("output", has_text="Marked as wrong (1 so far)").wait_for()
        page.page.close()
        assert posted(number, token="guess") == 403


def test_a_folder_without_models_and_a_port_in_use_are_one_line(
    glyphpress: Callable[..., Any], run_dir: Path, port: int, tmp_path: Path
) -> None:
    empty = glyphpress("kiosk", tmp_path)
    assert (empty.code, empty.err.count("\n")) == (3, 1)
    assert "holds no .onnx or .tflite file" in empty.err
    nowhere = glyphpress("kiosk", tmp_path / "nowhere")
    assert (nowhere.code, nowhere.err.count("\n")) == (3, 1)
    assert "no such folder" in nowhere.err
    taken = glyphpress("kiosk", run_dir, "--port", port, "--save", tmp_path / "wrong")
    assert (taken.code, taken.err.count("\n")) == (3, 1)
    assert f"port {port} is in use" in taken.err
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(StageError):
        kiosk_models(tmp_path)


def test_a_file_to_ship_that_is_gone_is_told(
    glyphpress: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end(_server: ThreadingHTTPServer, poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", end)
    for name in ("float.onnx", "other.onnx"):
        (tmp_path / name).touch()
    pressed_report(3).save(tmp_path / "report.json")
    models = kiosk_models(tmp_path)
    assert models.first == ("float.onnx", "other.onnx")
    assert models.notes == (
        "int8.onnx, the file to ship of this press, is not in its folder; other.onnx is shown in its place",
    )
    assert f"warning: {models.notes[0]}" in glyphpress("kiosk", tmp_path, "--port", 0).err
    (tmp_path / "other.onnx").rename(tmp_path / "int8.onnx")
    assert kiosk_models(tmp_path).notes == ()


def test_the_start_is_one_line_of_json_and_a_page_for_other_machines_is_warned_of(
    glyphpress: Callable[..., Any], run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end(_server: ThreadingHTTPServer, poll_interval: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", end)
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert "no web browser here; open the address" in glyphpress("kiosk", run_dir, "--port", 0, "--open").err
    local = glyphpress("kiosk", run_dir, "--port", 0, "--json")
    assert (local.code, local.err, local.out.count("\n")) == (0, "", 1)
    told = json.loads(local.out)
    assert told["schema"] == "glyphpress/kiosk/1"
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+/", told["url"])
    assert [each["name"] for each in told["files"]] == sorted(NAMES)
    open_to_all = glyphpress("kiosk", run_dir, "--port", 0, "--host", "0.0.0.0", "--save", tmp_path / "wrong")
    assert open_to_all.code == 0
    assert "other machines can open this page at this machine's address in their network" in open_to_all.err
    sixth = glyphpress("kiosk", run_dir, "--port", 0, "--host", "::1")
    assert (sixth.code, sixth.err.count("\n")) == (2, 1)
    assert "give an IPv4 address or a name" in sixth.err
    assert "fill the folder of --save" in open_to_all.err
