"""Programs that `glyphpress snippet` prints, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.glyph import glyph
from calibration.load import load
from targets.metadata import load_artifact, save_sidecar
from targets.preprocess import ORIENTATIONS, Preprocess
from targets.preprocess import TURNS as APPLIED
from tests.fixtures.digit_files import NAMES, digit_files
from tests.fixtures.small_readers import linear_reader
from toolchain.commands.snippet import LANGUAGES, TURNS
from toolchain.evaluation.evaluate import are_probabilities
from toolchain.evaluation.untracked import open_artifact
from toolchain.gate.candidate import open_session

PICTURES = 100


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write test digits as scans would be: larger, dark on light, off the centre."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(load("builtin:digits", "test").images[:PICTURES]):
        scan = Image.new("L", (90, 110), 230)
        scan.paste(Image.fromarray(230 - (image * 0.7).astype(np.uint8)).resize((56, 56)), (20, 30))
        scan.save(folder / f"{index:03}.png")
    return folder


def printed(program: Path, pictures: Path) -> list[str]:
    """Run a program without glyphpress on its path; return the lines that it prints."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, "-I", program.name, *map(str, sorted(pictures.iterdir()))]
    done = subprocess.run(words, cwd=program.parent, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expected(path: Path, pictures: Path) -> list[str]:
    """Return what glyphpress itself reads in the pictures."""
    paths = sorted(pictures.iterdir())
    glyphs = np.stack([glyph(Image.open(each)) for each in paths])
    with open_session(artifact := open_artifact(path, None)) as session:
        answers = session.run(glyphs)
    if not are_probabilities(answers):
        raised = np.exp(answers - answers.max(1, keepdims=True))
        answers = raised / raised.sum(1, keepdims=True)
    return [
        f"{each}: {artifact.classes[row.argmax()]}  {row.max():.2%}" for each, row in zip(paths, answers, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_program_reads_as_glyphpress_does(glyphpress, name: str, tmp_path: Path, pictures: Path) -> None:
    digit_files(tmp_path)
    assert glyphpress("snippet", tmp_path / name, "-o", tmp_path / "read.py").code == 0
    lines = printed(tmp_path / "read.py", pictures)
    assert lines == expected(tmp_path / name, pictures)
    assert len({line.split()[1] for line in lines}) == 10


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess("rot90", "0-255", invert=True),
        Preprocess("transpose", mean=0.1307, std=0.3081, label_offset=0),
    ],
    ids=str,
)
def test_the_sidecar_decides_how_pictures_are_prepared(
    glyphpress, preprocess: Preprocess, tmp_path: Path, pictures: Path
) -> None:
    path = linear_reader(tmp_path / "digits.onnx")
    save_sidecar(replace(load_artifact(path), preprocess=preprocess))
    program = glyphpress("snippet", path)
    (tmp_path / "read.py").write_text(program.out)
    assert printed(tmp_path / "read.py", pictures) == expected(path, pictures)


def test_every_turn_is_that_of_the_preprocess() -> None:
    images = np.arange(2 * 28 * 28).astype(np.uint8).reshape(2, 28, 28)
    for orientation in ORIENTATIONS:
        turned = eval(f"images{TURNS[orientation]}", {"images": images})
        assert np.array_equal(turned, APPLIED[orientation](images))


def test_a_program_refuses_another_file_and_a_picture_without_ink(glyphpress, tmp_path: Path) -> None:
    digit_files(tmp_path)
    model = tmp_path / NAMES[0]
    program = tmp_path / "read.py"
    program.write_text(glyphpress("snippet", model).out)
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    run = [sys.executable, program, tmp_path / "blank.png"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no ink in it" in done.stderr
    assert "Traceback" not in done.stderr
    model.write_bytes(model.read_bytes() + b"\0")
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not the file that this program was made for" in done.stderr


def test_languages_take_their_own_files(glyphpress, tmp_path: Path) -> None:
    digit_files(tmp_path)
    for language, (kind, *_) in LANGUAGES.items():
        other = next(name for name in NAMES if not name.endswith(kind))
        ran = glyphpress("snippet", tmp_path / other, "--for", language)
        assert (ran.code, ran.out) == (2, "")
        assert "give --for" in ran.err
