from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration import download
from calibration.load import load
from calibration.spec import SPLITS
from tests.fixtures.archive_server import Behaviour, serving
from tests.fixtures.official_files import strokes, write_split


@pytest.fixture(autouse=True)
def no_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GLYPHPRESS_DATA", raising=False)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        data = load("builtin:digits", split)  # type: ignore[arg-type]
        write_split(tmp_path / "files", "digits", split, data.images, data.labels)
    return tmp_path / "files"


def test_list_says_what_there_is_and_where(glyphpress, digits: Path) -> None:
    ran = glyphpress("data", "list", "--data-root", digits)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert len(lines) == 8
    assert lines[0].split() == ["builtin:digits", "10", "classes", "1,198", "train", "599", "test", "built", "in"]
    found = next(line for line in lines if line.startswith("emnist:digits"))
    assert found.endswith(str(digits))
    assert "240,000 train" in found
    assert "data fetch" in next(line for line in lines if line.startswith("emnist:byclass"))


def test_list_as_json(glyphpress, digits: Path) -> None:
    ran = glyphpress("data", "list", "--json", "--data-root", digits)
    said = json.loads(ran.out)
    assert said["schema"] == "glyphpress/data-list/1"
    rows = {row["spec"]: row for row in said["data"]}
    assert set(rows) == {"builtin:digits", "builtin:digits8x8", *(f"emnist:{name}" for name in SPLITS)}
    assert rows["emnist:digits"]["found"] == {"train": str(digits), "test": str(digits)}
    assert rows["emnist:letters"]["found"] == {}
    assert rows["emnist:letters"]["classes"][0] == "A"


def test_check_of_sound_data(glyphpress) -> None:
    ran = glyphpress("data", "check", "builtin:digits", "--strict")
    assert ran.code == 0
    assert "orientation: upright by" in ran.out
    assert ran.out.rstrip().endswith("finding: none")


def test_findings_are_no_failure_unless_strict(glyphpress, digits: Path) -> None:
    ran = glyphpress("data", "check", f"{digits}:digits")
    assert ran.code == 0
    assert "finding: test: 599 images, not the official 40,000" in ran.out
    strict = glyphpress("data", "check", f"{digits}:digits", "--strict")
    assert strict.code == 3
    assert "4 findings; leave out --strict" in strict.err


def test_check_as_json_is_one_object_on_stdout(glyphpress, digits: Path) -> None:
    test = load(f"{digits}:digits")
    write_split(digits, "digits", "test", test.images.swapaxes(1, 2), test.labels)
    ran = glyphpress("data", "check", f"{digits}:digits", "--json")
    said = json.loads(ran.out)
    assert said["schema"] == "glyphpress/data-check/1"
    assert said["orientation"]["looks"] == "transpose"
    assert said["orientation"]["confidence"] > 0.99
    assert said["shared"] == 0
    assert any("not upright" in text for text in said["findings"])


def spoil(digits: Path) -> None:
    path = digits / "emnist-digits-test-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check", "{files}:digits"], 3, "test-images-idx3-ubyte.gz: expected a whole gzip stream at unpacked byte"),
        (["check", "{files}:digit"], 2, "EMNIST has no split 'digit'; did you mean digits"),
        (["check", "emnist:balanced"], 3, "no emnist-balanced-train-images-idx3-ubyte[.gz], emnist-"),
        (["check", "balanced"], 2, "did you mean emnist:balanced?"),
        (["check", "{files}/empty"], 3, "holds no class subfolders"),
        (["check", "{files}/one"], 3, "holds a single class, 'A'"),
        (["check", "{files}/odd"], 3, "A/x.png is not a readable picture"),
        (["check", "{files}/nothing"], 3, "no folder"),
        (["fetch", "--data-root", "{files}/root", "--url", "nowhere"], 2, "nowhere is not an address that can"),
        (["chek"], 2, "did you mean check"),
    ],
)
def test_bad_input_is_one_line_and_a_code(words: list[str], code: int, said: str, glyphpress, digits: Path) -> None:
    spoil(digits)
    for folder in ("empty", "one/A", "odd/A", "odd/B"):
        (digits / folder).mkdir(parents=True)
    (digits / "odd" / "A" / "x.png").write_text("no picture")
    Image.fromarray(strokes(1)[0]).save(digits / "odd" / "B" / "y.png")
    ran = glyphpress("data", *(word.format(files=digits) for word in words))
    assert ran.code == code
    assert said in ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    if words != ["chek"]:
        assert ran.err.rstrip().splitlines()[-1].startswith("glyphpress: ")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in the official one's place."""
    for name in SPLITS:
        for split in ("train", "test"):
            write_split(tmp_path / "made", name, split, strokes(4), np.arange(4))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for path in (tmp_path / "made").iterdir():
            zipped.write(path, f"gzip/{path.name}")
    content = buffer.getvalue()
    official = download.Archive("http://127.0.0.1:9/", hashlib.md5(content).hexdigest(), len(content))
    monkeypatch.setattr(download, "OFFICIAL", official)
    return content


def test_fetch_fills_the_user_cache_and_list_finds_it(glyphpress, archive: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(archive)) as url:
        ran = glyphpress("data", "fetch", "--url", url)
    folder = tmp_path / "cache" / "glyphpress" / "emnist" / "gzip"
    assert (ran.code, ran.out) == (0, f"30 files in {folder}\n")
    assert "downloading EMNIST" in ran.err
    assert f"{folder}" in glyphpress("data", "list").out


def test_fetch_as_json_into_a_named_folder(glyphpress, archive: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(archive)) as url:
        ran = glyphpress("data", "fetch", "--url", url, "--data-root", tmp_path / "root", "--json")
    said = json.loads(ran.out)
    assert (said["schema"], said["folder"]) == ("glyphpress/data-fetch/1", str(tmp_path / "root" / "gzip"))
    assert "emnist-letters-mapping.txt" in said["files"]


def test_fetch_of_a_wrong_file_leaves_nothing(glyphpress, archive: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(archive[:-1] + b"!")) as url:
        ran = glyphpress("data", "fetch", "--url", url, "--data-root", tmp_path / "root")
    assert ran.code == 3
    assert "does not have the MD5" in ran.err
    assert not list((tmp_path / "root").iterdir())
