"""The examples, run as their readers run them."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image

from targets.browser import BrowserTarget
from targets.browser.chromium import FLAGS, executable
from tests.conftest import Finished
from tests.fixtures.digit_files import digit_files
from tests.fixtures.digit_pages import LINES, digit_page
from tests.fixtures.small_readers import digits, linear_reader
from toolchain.gate.candidate import evaluate_file
from toolchain.gate.policy import read_policy

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
INT8 = "digits.static-int8.onnx"
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pressed files."""
    folder = tmp_path_factory.mktemp("pressed")
    digit_files(folder)
    return folder


@pytest.fixture
def kiosk(files: Path, tmp_path: Path, glyphpress: Run) -> Iterator[int]:
    """The port of a kiosk of the int8 file, in a folder that holds what its device needs."""
    for name in (INT8, f"{INT8}.json"):
        shutil.copy(files / name, tmp_path)
    shutil.copy(EXAMPLES / "kiosk/kiosk.py", tmp_path)
    made = glyphpress("snippet", tmp_path / INT8, "-o", tmp_path / "read.py")
    assert made.code == 0, made.err
    (tmp_path / f"{INT8}.json").unlink()
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, tmp_path / "kiosk.py", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield int(server.stdout.readline().rpartition(":")[2])
        server.terminate()


def posted(port: int, picture: bytes) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", picture)
    return dict(json.loads(connection.getresponse().read()))


def test_the_kiosk_reads_as_the_file_does_and_its_page_shows_it(kiosk: int, files: Path) -> None:
    few = digits().take(np.arange(20), "20 digits")
    logits = evaluate_file(files / INT8, few).logits
    for glyph, wanted in zip(few.images, logits, strict=True):
        picture = io.BytesIO()
        Image.fromarray(glyph).save(picture, "PNG")
        answer = posted(kiosk, picture.getvalue())
        assert answer["character"] == few.classes[wanted.argmax()]
        assert answer["sure"] == pytest.approx(float((np.exp(wanted - wanted.max())).sum() ** -1), abs=1e-4)
    assert "no ink" in posted(kiosk, blank())["error"]
    assert "it is no picture" in posted(kiosk, b"no picture")["error"]
    if not (state := BrowserTarget().probe()).ok:
        pytest.skip(f"no browser ({state.reason}): the page NOT checked")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{kiosk}/")
        sheet = page.locator("canvas").bounding_box()
        assert sheet
        for k, (x, y) in enumerate([(90, 60), (210, 60), (150, 150), (120, 250)]):
            page.mouse.move(sheet["x"] + x, sheet["y"] + y)
            if not k:
                page.mouse.down()
        page.mouse.up()
        page.get_by_text("sure)").wait_for()
        assert re.fullmatch(r"7 \(\d+ % sure\)", page.locator("p").inner_text())
        page.get_by_text("Clear").click()
        assert page.locator("p").inner_text() == "Draw a character."
        chromium.close()


def blank() -> bytes:
    picture = io.BytesIO()
    Image.new("L", (60, 60), 255).save(picture, "PNG")
    return picture.getvalue()


def test_the_kiosk_has_60_lines() -> None:
    assert len((EXAMPLES / "kiosk/kiosk.py").read_text().splitlines()) <= 60


def test_the_scanner_fills_a_table_that_says_what_to_check(files: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, lines in (("b.PNG", LINES), ("a.png", LINES[:1])):
        Image.fromarray(255 - digit_page(lines)).save(scans / name)
    (scans / "notes.txt").write_text("no picture")
    Image.new("L", (300, 100), 255).save(scans / "c.png")
    command = [sys.executable, EXAMPLES / "scanner/scan.py", scans, tmp_path / "t.csv", "--artifact", files / INT8]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "c.png" in done.stderr
    with (tmp_path / "t.csv").open(newline="") as stream:
        *rows, blank = csv.DictReader(stream)
    assert (blank["file"], blank["text"], blank["sure"]) == ("c.png", "", "0.000")
    assert [(row["file"], row["text"]) for row in rows] == [("a.png", LINES[0]), ("b.PNG", "\n".join(LINES))]
    assert all(0 < float(row["sure"]) < 1 and row["least sure of"] in row["text"] for row in rows)


def test_ci_in_miniature_is_what_the_action_takes_and_judges(tmp_path: Path, glyphpress: Run, monkeypatch) -> None:
    folder = shutil.copytree(EXAMPLES / "ci", tmp_path / "ci")
    monkeypatch.chdir(folder)
    workflow = yaml.safe_load((folder / ".github/workflows/gate.yml").read_text())
    (step,) = (step for step in workflow["jobs"]["gate"]["steps"] if "glyphpress" in step.get("uses", ""))
    path = step["uses"].partition("@")[0].removeprefix("OWNER/glyphpress/")
    action = yaml.safe_load((EXAMPLES.parent / path / "action.yml").read_text())
    given = step["with"]
    assert set(given) <= set(action["inputs"])
    assert {name for name, entry in action["inputs"].items() if entry.get("required")} <= set(given)
    assert set(read_policy(folder / given["policy"]).to_dict()) == {"drop", "size"}
    pointer = dict(line.split("=") for line in (folder / "data.env").read_text().splitlines())
    assert given["data"] == "${{ env.DATA }}"
    # README's two commands, on files of the names that it says.
    linear_reader(folder / "model.float.onnx")
    linear_reader(folder / given["candidate"], step=1e-4)
    text = (folder / "README.md").read_text()
    assert len(text.splitlines()) <= 10
    store, judge = (
        shlex.split(line.partition("&& ")[2].replace("$DATA", pointer["DATA"]))[1:]
        for line in text.splitlines()
        if line.startswith("    ")
    )
    assert glyphpress(*store).code == 0
    assert (folder / given["baseline"]).is_file()
    assert glyphpress(*judge).code == 0
    linear_reader(folder / given["candidate"], dead=(4, 7))
    assert glyphpress(*judge).code == 1
    for option in ("baseline", "candidate", "policy"):
        assert judge[judge.index(f"--{option}") + 1] == given[option]


@pytest.mark.slow
def test_the_notebook_trains_presses_looks_and_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(EXAMPLES / "notebook/train_press_gate.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "outputs are stripped in the repository"
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [
        "".join(str(output.get("text") or output["data"].get("text/markdown", "")) for output in cell.outputs)
        for cell in code
    ]
    assert "test accuracy" in said[1]
    assert "| digits.static-int8.onnx |" in said[2]
    assert re.search(r"\d+ of 599 images are read differently", said[3])
    assert re.search(r"^PASS +drop ", said[4], re.MULTILINE)
