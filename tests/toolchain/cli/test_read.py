"""`glyphpress read`: text, boxes and confidences of pictures of digits, and one line where it cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from targets import catalog
from targets.artifact import Artifact, Format
from tests.conftest import Finished
from tests.fixtures.digit_files import digit_files
from tests.fixtures.digit_pages import LINES, check_read_alike, digit_page
from tests.fixtures.emulated import emulated
from tests.fixtures.small_readers import linear_reader
from toolchain.checkpoint.float_model import FloatModel
from toolchain.commands import read as command

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader of digits, a page of two lines, the page upside down, and pictures that cannot be read."""
    folder = tmp_path_factory.mktemp("read")
    linear_reader(folder / "digits.onnx")
    linear_reader(folder / "bare.onnx")
    (folder / "bare.onnx.json").unlink()
    page = digit_page(LINES)
    Image.fromarray(page).save(folder / "page.png")
    Image.fromarray(255 - np.rot90(page, 2)).save(folder / "turned.png")
    Image.fromarray(digit_page(("27.5",))).save(folder / "marked.png")
    Image.new("L", (300, 100), 255).save(folder / "blank.png")
    Image.new("L", (1, 1)).save(folder / "pixel.png")
    Image.new("1", (8000, 5000), 1).save(folder / "huge.png")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    (folder / "cut.png").write_bytes((folder / "page.png").read_bytes()[:200])
    return folder


def test_the_text_is_printed_and_nothing_else(folder: Path, glyphpress: Run) -> None:
    done = glyphpress("read", folder / "page.png", "--artifact", folder / "digits.onnx", "-q")
    assert (done.code, done.out, done.err) == (0, "314 159\n2653\n", "")


def test_json_has_boxes_words_and_the_best_answers(folder: Path, glyphpress: Run) -> None:
    done = glyphpress("read", folder / "page.png", "--artifact", folder / "digits.onnx", "--json", "--top", 2)
    answer = json.loads(done.out)
    assert (answer["schema"], answer["artifact"], answer["facts"]["target"]) == (
        "glyphpress/read/1",
        "digits.onnx",
        "ort-cpu",
    )
    (picture,) = answer["pictures"]
    assert (picture["text"], picture["lines"], picture["paper"]) == ("314 159\n2653", [*LINES], "dark")
    characters = picture["characters"]
    assert "".join(each["read"] for each in characters) == "3141592653"
    assert [each["word"] for each in characters] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert [each["line"] for each in characters] == [0] * 6 + [1] * 4
    for number, each in enumerate(characters[:3]):
        left, top, right, bottom = each["box"]
        assert 18 + 24 * number <= left < right <= 46 + 24 * number
        assert 20 <= top < bottom <= 48
        assert [each["read"], 2] == [each["answers"][0]["class"], len(each["answers"])]
        assert each["answers"][0]["confidence"] > each["answers"][1]["confidence"] > 0


def test_classes_narrow_the_answers(folder: Path, glyphpress: Run) -> None:
    words = ("read", folder / "page.png", "--artifact", folder / "digits.onnx", "--classes")
    done = glyphpress(*words, "0-5", "--json")
    characters = json.loads(done.out)["pictures"][0]["characters"]
    assert {answer["class"] for each in characters for answer in each["answers"]} <= set("012345")
    assert "".join(each["read"] for each in characters).startswith("31415")
    unknown = glyphpress(*words, "A")
    assert unknown.code == 2
    assert "'A'" in unknown.err


def test_one_of_a_kind_is_named_in_the_singular(folder: Path, glyphpress: Run, tmp_path: Path) -> None:
    page = np.pad(digit_page(("314 159",)), ((0, 40), (0, 0)))
    page[32:38, 30:75] = 255  # three digits become one piece
    page[-10:-8, 5:-5] = 255
    Image.fromarray(page).save(tmp_path / "joined.png")
    done = glyphpress("read", tmp_path / "joined.png", "--artifact", folder / "digits.onnx")
    assert "1 piece is so wide that it may be letters that touch" in done.err
    assert "1 long thin line (rule, frame) is left out" in done.err


def test_several_pictures_are_named_and_get_their_overlays(folder: Path, glyphpress: Run, tmp_path: Path) -> None:
    pictures, artifact = (folder / "page.png", folder / "marked.png"), ("--artifact", folder / "digits.onnx")
    done = glyphpress("read", *pictures, *artifact, "--out", tmp_path / "boxes")
    assert done.out.splitlines() == [
        f"{folder}/page.png: 314 159",
        f"{folder}/page.png: 2653",
        f"{folder}/marked.png: 275",
    ]
    assert "1 small mark (full stop, dash, speck) is left out" in done.err
    with Image.open(tmp_path / "boxes" / "page.overlay.png") as overlay, Image.open(pictures[0]) as page:
        scale = overlay.width // page.width
        assert overlay.size == (page.width * scale, overlay.height)
        assert overlay.height > page.height * scale
        # Boxes are blue or orange on a gray picture.
        assert len({pixel for _, pixel in overlay.getcolors(1 << 20) or () if max(pixel) - min(pixel) > 90}) >= 1
    again = glyphpress("read", *pictures, *artifact, "--out", tmp_path / "boxes")
    assert (again.code, again.out) == (2, "")
    assert "--force" in again.err


def test_one_blank_picture_does_not_keep_the_others_from_being_read(
    folder: Path, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = ("read", "marked.png", "blank.png", "cut.png", "page.png", "--artifact", "digits.onnx")
    done = glyphpress(*words, "-q", "--out", tmp_path / "boxes")
    assert (done.code, done.out) == (3, "marked.png: 275\npage.png: 314 159\npage.png: 2653\n")
    reasons = [line for line in done.err.splitlines() if "small mark" not in line]
    assert "blank.png: there is no ink in it" in reasons[0]
    assert "cut.png" in reasons[1]
    assert reasons[2].endswith("2 of 4 pictures could not be read: blank.png, cut.png")
    assert sorted(path.name for path in (tmp_path / "boxes").iterdir()) == ["marked.overlay.png", "page.overlay.png"]
    told = glyphpress(*words, "--json")
    facts = json.loads(told.out)
    assert (told.code, [picture["file"] for picture in facts["pictures"]]) == (3, ["marked.png", "page.png"])
    assert [unread["file"] for unread in facts["unread"]] == ["blank.png", "cut.png"]
    assert "no ink" in facts["unread"][0]["reason"]


def test_a_page_on_its_head_is_told_and_can_be_turned(
    folder: Path, floats: dict[Format, Artifact], glyphpress: Run
) -> None:
    artifact = ("--artifact", floats["onnx"].path)
    done = glyphpress("read", folder / "turned.png", *artifact, "-q")
    assert done.code == 0
    assert f"if it lies upside down: `glyphpress read {folder}/turned.png --rotate 180`" in done.err
    turned = glyphpress("read", folder / "turned.png", *artifact, "--rotate", 180)
    assert turned.out == "314 159\n2653\n"
    assert "upside down" not in turned.err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return digit_files(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(
    ("target", "file", "within"),
    [
        ("openvino-cpu", "float.onnx", 1e-5),
        ("ort-precise", "static-int8.onnx", 0),
        ("litert-reference", "float.tflite", 1e-5),
        ("browser", "float.onnx", 1e-5),
        ("browser", "static-int8.tflite", 0),
    ],
)
def test_every_kind_of_target_reads_alike(
    *, target: str, file: str, within: float, files: dict[str, Artifact], glyphpress: Run, tmp_path: Path
) -> None:
    """Boards over ssh are tested in `tests/targets/ssh`, where one is set up already."""
    state = catalog.get(target).probe()
    if not state.ok:
        pytest.skip(f"{target} is not here ({state.reason}): NOT checked")
    check_read_alike(glyphpress, files[f"digits.{file}"].path, target, tmp_path, within=within)


@pytest.mark.slow
def test_an_emulated_processor_reads_alike(files: dict[str, Artifact], glyphpress: Run, tmp_path: Path) -> None:
    target = emulated("cortex-a72").name
    check_read_alike(glyphpress, files["digits.static-int8.onnx"].path, target, tmp_path, within=0)


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("ssh://nowhere.invalid", 4, "ssh://nowhere.invalid: "),
        ("raspberry-pi-4", 4, "the profile names no host; take ssh://USER@HOST"),
        ("arm64:cortex-a75", 2, "did you mean cortex-a76"),
        ("brouser", 2, "browser"),
    ],
)
def test_a_target_that_cannot_be_reached_is_one_line(
    folder: Path, glyphpress: Run, tmp_path: Path, *, target: str, code: int, said: str
) -> None:
    words = ("--artifact", folder / "digits.onnx", "--target", target, "-o", tmp_path / "boxes.png")
    done = glyphpress("read", folder / "page.png", *words, "-q")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert said in done.err
    assert not (tmp_path / "boxes.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["blank.png"], 3, "blank.png: there is no ink in it"),
        (["pixel.png"], 3, "pixel.png: there is no ink in it"),
        (["blank.png", "pixel.png"], 3, "blank.png: there is no ink in it"),
        (["huge.png"], 3, "at most 16,777,216 are read; scan the page at 300 dpi"),
        (["paper.pdf"], 3, "it is a PDF"),
        (["cut.png"], 3, "damaged picture"),
        (["none.png"], 3, "no picture"),
        (["page.png", "--rotate", "45"], 2, "'45' is not known"),
        (["page.png", "--artifact", "bare.onnx"], 3, "glyphpress adopt"),
        (["page.png", "--artifact", "cnn-smal"], 2, "neither a model file nor cnn-small or cnn-deep"),
        (["page.png", "--artifact", "digits.onnx", "--target", "litert-cpu"], 2, "--target ort-cpu"),
        (["page.png", "blank.png", "-o", "x.png"], 2, "--out DIR takes them all"),
        (["page.png", "-o", "page.png"], 2, "is the file that it is to be made from"),
        (["page.png", "-o", "boxes.jpg"], 2, "should end in .png"),
        (["page.png", "page.png", "--out", "x"], 2, "two pictures would be written to page.overlay.png"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    words: list[str], code: int, said: str, folder: Path, glyphpress: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    artifact = [] if "--artifact" in words else ["--artifact", "digits.onnx"]
    before = sorted(folder.iterdir())
    done = glyphpress("read", *words, *artifact, "-q")
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_without_an_artifact_the_model_that_ships_is_converted_once(
    folder: Path, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion itself, which takes long, is tested elsewhere."""
    converted = []

    def export(model: FloatModel, kind: Format, path: Path) -> None:
        assert kind == "onnx"
        converted.append(model.name)
        linear_reader(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(command, "export", export)
    first, second = (glyphpress("read", folder / "page.png") for _ in range(2))
    assert first.out == second.out == "314 159\n2653\n"
    assert converted == [command.DEFAULT]
    assert "is converted to cnn-deep.float.onnx" in first.err
    assert "converted" not in second.err
    other = glyphpress("read", folder / "page.png", "--artifact", "cnn-small")
    assert other.code == 0
    assert converted == [command.DEFAULT, "cnn-small"]
