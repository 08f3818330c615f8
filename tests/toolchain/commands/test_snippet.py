"""Programs that `glyphpress snippet` prints, run as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibration.glyph import glyph
from targets.host.runtime_session import codecs_of
from targets.metadata import load_artifact, save_sidecar
from targets.preprocess import ORIENTATIONS, TURNS, Preprocess
from tests.fixtures.digit_files import NAMES, digit_files
from tests.fixtures.native_programs import compiled, java, onnxruntime_android, run
from tests.fixtures.node_packages import node_packages
from tests.fixtures.scans import answers_of, close, expected, write_kinds, write_scans
from tests.fixtures.small_readers import integer_reader, linear_reader
from toolchain.cli.snippet import snippet as command
from toolchain.commands.snippet import LANGUAGES, PYTHON_TURNS, Turn, snippet
from toolchain.core.errors import UsageProblem
from toolchain.evaluation.untracked import open_artifact
from toolchain.gate.candidate import open_session


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write test digits as scans would be: larger, dark on light, off the centre."""
    return write_scans(tmp_path_factory.mktemp("pictures"))


def printed(program: Path, pictures: Path) -> list[str]:
    """Run a program without glyphpress on its path; return the lines that it prints."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, "-I", program.name, *map(str, sorted(pictures.iterdir()))]
    done = subprocess.run(words, cwd=program.parent, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def near(lines: list[str]) -> list[tuple[str, str, Any]]:
    """Return the answers of lines, up to what decoders of JPEG differ by: a level here and there."""
    return [(name, answer, pytest.approx(share, abs=0.5)) for name, answer, share in answers_of(lines)]


def node(program: Path, pictures: Path) -> subprocess.CompletedProcess[str]:
    """Run a JavaScript program as its first lines say."""
    releases = LANGUAGES["javascript"].packages["onnx"].split()
    (program.parent / "node_modules").symlink_to(node_packages(releases))
    words = ["node", program.name, *map(str, sorted(pictures.iterdir()))]
    return subprocess.run(words, cwd=program.parent, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_reads_as_glyphpress_does(glyphpress, name: str, tmp_path: Path, pictures: Path) -> None:
    digit_files(tmp_path)
    assert glyphpress("snippet", tmp_path / name, "-o", tmp_path / "read.py").code == 0
    lines = printed(tmp_path / "read.py", pictures)
    assert lines == expected(tmp_path / name, pictures)
    assert len({line.split()[1] for line in lines}) == 10


def test_a_program_in_another_folder_says_that_the_model_is_not_there(glyphpress, tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "reader.onnx")
    beside = glyphpress("snippet", path, "-o", tmp_path / "read.py")
    assert beside.out.endswith("read.py: reads pictures with reader.onnx; keep both in one folder\n")
    apart = glyphpress("snippet", path, "-o", tmp_path / "new/read.py")
    assert apart.out.endswith(f"reads pictures with reader.onnx; copy that file to {tmp_path / 'new'}\n")


def reader(folder: Path, preprocess: Preprocess | None) -> Path:
    """Write a linear reader with this preprocess, or one of four images of integers at a time."""
    if preprocess is None:
        return integer_reader(folder / "reader.onnx")
    path = linear_reader(folder / "reader.onnx")
    save_sidecar(replace(load_artifact(path), preprocess=preprocess))
    return path


PREPROCESSES = [
    Preprocess("rot90", "0-255", invert=True),
    Preprocess("transpose", mean=0.1307, std=0.3081, label_offset=0),
]


@pytest.mark.skipif(not shutil.which("npm"), reason="no node and npm: JavaScript programs NOT run")
@pytest.mark.parametrize("preprocess", [None, *PREPROCESSES], ids=str)
def test_a_javascript_program_reads_as_glyphpress_does(
    glyphpress, preprocess: Preprocess | None, tmp_path: Path, pictures: Path
) -> None:
    path = reader(tmp_path, preprocess)
    assert glyphpress("snippet", path, "--for", "javascript", "-o", tmp_path / "read.mjs").code == 0
    done = node(tmp_path / "read.mjs", pictures)
    assert done.returncode == 0, done.stderr
    wanted = answers_of(expected(path, pictures))
    assert answers_of(done.stdout.splitlines()) == [(name, answer, close(share)) for name, answer, share in wanted]


@pytest.mark.skipif(not shutil.which("npm"), reason="no node and npm: JavaScript programs NOT run")
def test_a_javascript_program_opens_pictures_of_every_kind_as_pillow_does(glyphpress, tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "reader.onnx")
    folder = write_kinds(tmp_path / "pictures")
    (tmp_path / "read.mjs").write_text(glyphpress("snippet", path, "--for", "javascript").out)
    done = node(tmp_path / "read.mjs", folder)
    assert done.returncode == 0, done.stderr
    assert answers_of(done.stdout.splitlines()) == near(expected(path, folder))


@pytest.mark.skipif(not shutil.which("npm"), reason="no node and npm: JavaScript programs NOT run")
def test_a_javascript_program_refuses_another_file_and_a_picture_without_ink(glyphpress, tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "reader.onnx")
    program = tmp_path / "read.mjs"
    program.write_text(glyphpress("snippet", path, "--for", "javascript").out)
    (folder := tmp_path / "pictures").mkdir()
    Image.new("L", (40, 40), 255).save(folder / "blank.png")
    done = node(program, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{folder / 'blank.png'}: there is no ink in it\n"
    path.write_bytes(path.read_bytes() + b"\0")
    (tmp_path / "node_modules").unlink()
    done = node(program, folder)
    assert done.returncode == 1
    assert "is not the file that this program was made for" in done.stderr


@pytest.mark.skipif(not shutil.which("g++") or not shutil.which("npm"), reason="no g++ and npm: C++ programs NOT run")
@pytest.mark.parametrize("preprocess", [None, PREPROCESSES[0]], ids=str)
def test_a_cpp_program_reads_as_glyphpress_does(
    glyphpress, preprocess: Preprocess | None, tmp_path: Path, pictures: Path
) -> None:
    path = reader(tmp_path, preprocess)
    (folder := tmp_path / "pictures").mkdir()
    for each in sorted(pictures.iterdir()):
        Image.open(each).save(folder / f"{each.stem}.pgm")
    assert glyphpress("snippet", path, "--for", "c++", "-o", tmp_path / "read.cpp").code == 0
    program = compiled(tmp_path / "read.cpp")
    printed = run([program, *sorted(folder.iterdir())])
    wanted = answers_of(expected(path, folder))
    assert answers_of(printed.splitlines()) == [(name, answer, close(share)) for name, answer, share in wanted]
    if Path("/usr/include/stb/stb_image.h").is_file():
        kinds = write_kinds(tmp_path / "kinds")
        printed = run([program, *sorted(kinds.iterdir())])
        assert answers_of(printed.splitlines()) == near(expected(path, kinds))
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.pgm")
    for added, problem in (
        (b"", f"{tmp_path / 'blank.pgm'}: there is no ink in it"),
        (b"\0", f"{path} is not the file that this program was made for; make the program again"),
    ):
        path.write_bytes(path.read_bytes() + added)
        done = subprocess.run([program, tmp_path / "blank.pgm"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{problem}\n")


INTERPRETER = """
package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Map;

public class Interpreter {
  private final ByteBuffer answers;

  public Interpreter(ByteBuffer model) {
    try {
      answers = ByteBuffer.wrap(Files.readAllBytes(Paths.get("answers")));
    } catch (java.io.IOException error) {
      throw new java.io.UncheckedIOException(error);
    }
  }

  public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
    ByteBuffer input = (ByteBuffer) inputs[0];
    while (input.hasRemaining()) System.out.printf("%02x", input.get());
    System.out.print(" ");
    ByteBuffer output = (ByteBuffer) outputs.get(0);
    while (output.hasRemaining()) output.put(answers.get());
  }

  public void close() {}
}
"""
APP = """
import java.awt.image.Raster;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Paths;
import javax.imageio.ImageIO;

final class App {
  public static void main(String[] words) throws Exception {
    try (GlyphReader reader = new GlyphReader(Files.readAllBytes(Paths.get(GlyphReader.MODEL)))) {
      for (String path : words) {
        Raster raster = ImageIO.read(new File(path)).getRaster();
        int[] pixels = raster.getSamples(0, 0, raster.getWidth(), raster.getHeight(), 0, (int[]) null);
        for (int k = 0; k < pixels.length; k++) pixels[k] = 0xff000000 | pixels[k] * 0x10101;
        System.out.println(path + ": " + reader.read(pixels, raster.getWidth(), raster.getHeight()));
      }
    }
  }
}
"""


@pytest.mark.skipif(not shutil.which("javac"), reason="no javac: Java programs NOT run")
@pytest.mark.parametrize("integers", [False, True])
def test_a_java_program_gives_the_interpreter_what_the_sidecar_says(
    integers: bool, tmp_path: Path, pictures: Path
) -> None:
    artifact = digit_files(tmp_path)[NAMES[2]]
    if integers:
        source = replace(artifact.inputs[0], dtype="int8", scale=0.02, zero_point=-3, shape=(2, 28, 28, 1))
        sink = replace(artifact.outputs[0], dtype="uint8", scale=0.1, zero_point=77, shape=(2, 10))
        preprocess = Preprocess("rot270", mean=0.4, std=0.7)
        artifact = replace(artifact, inputs=(source,), outputs=(sink,), preprocess=preprocess)
    (source,), (sink,) = codecs_of(artifact)
    paths = sorted(pictures.iterdir())
    glyphs = np.stack([glyph(Image.open(each)) for each in paths])
    with open_session(open_artifact(tmp_path / NAMES[2], None)) as session:
        answers = sink.encode(session.run(glyphs))
    np.repeat(answers, source.batch, 0).tofile(tmp_path / "answers")
    for name, text in (("App", APP), ("Interpreter", INTERPRETER), ("GlyphReader", snippet(artifact, "java-android"))):
        (tmp_path / f"{name}.java").write_text(text)
    main = java(tmp_path, sorted(tmp_path.glob("*.java")))
    done = subprocess.run([*main, "App", *paths], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given, lines = zip(*(line.split(" ", 1) for line in done.stdout.splitlines()), strict=True)
    inputs = np.stack([np.frombuffer(bytes.fromhex(each), source.spec.dtype) for each in given])
    wanted = np.repeat(source.encode(artifact.preprocess.apply(glyphs)), source.batch, 0).reshape(inputs.shape)
    assert np.allclose(inputs, wanted, rtol=0, atol=1e-6)
    logits = sink.decode(answers)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    shares = raised.max(1) / raised.sum(1) * 100
    digits = map(str, logits.argmax(1))
    assert answers_of(list(lines)) == [
        (str(path), digit, close(share)) for path, digit, share in zip(paths, digits, shares, strict=True)
    ]


@pytest.mark.skipif(not shutil.which("javac") or not shutil.which("npm"), reason="no javac and npm: NOT compiled")
def test_a_java_program_fits_the_classes_of_onnxruntime(glyphpress, tmp_path: Path) -> None:
    digit_files(tmp_path)
    onnxruntime_android().extract("classes.jar", tmp_path)
    source = tmp_path / "GlyphReader.java"
    assert glyphpress("snippet", tmp_path / NAMES[0], "--for", "java-android", "-o", source).code == 0
    java(tmp_path, [Path("-cp"), tmp_path / "classes.jar", source])


@pytest.mark.parametrize("preprocess", [None, *PREPROCESSES], ids=str)
def test_the_sidecar_decides_how_pictures_are_prepared(
    glyphpress, preprocess: Preprocess | None, tmp_path: Path, pictures: Path
) -> None:
    path = reader(tmp_path, preprocess)
    program = glyphpress("snippet", path)
    (tmp_path / "read.py").write_text(program.out)
    assert printed(tmp_path / "read.py", pictures) == expected(path, pictures)


def test_every_turn_is_that_of_the_preprocess() -> None:
    images = np.arange(2 * 28 * 28).astype(np.uint8).reshape(2, 28, 28)
    for orientation in ORIENTATIONS:
        turned = eval(f"images{PYTHON_TURNS[orientation]}", {"images": images})
        assert np.array_equal(turned, TURNS[orientation](images))
        turn, rows = Turn.of(orientation), np.arange(28)
        places = turn.start + turn.down * rows[:, None] + turn.across * rows
        assert np.array_equal(images.reshape(2, -1)[:, places], turned)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A program in Python, imported as `read`, without running it."""
    folder = tmp_path_factory.mktemp("program")
    text = snippet(load_artifact(linear_reader(folder / "reader.onnx")))
    module = ModuleType("read")
    module.__file__ = str(folder / "read.py")
    sys.modules[module.__name__] = module  # where its dataclasses look for themselves
    exec(compile(text, module.__file__, "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


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
    for content, problem in (
        (model.read_bytes() + b"\0", "is not the file that this program was made for; make the program again"),
        (None, "is missing; keep the model file beside this program"),
    ):
        model.write_bytes(content) if content else model.unlink()
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, f"{model} {problem}\n")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is PostScript, which is a program"),
        (b"P5 60000 60000 255\n", "could be decompression bomb"),
        (b"P5 9 9 255\n", "truncated"),
        (None, "No such file or directory"),
    ],
    ids=["empty", "postscript", "huge", "cut", "missing"],
)
def test_a_picture_that_cannot_be_read_is_one_line(
    program: Any, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(program.CorruptData, match=problem) as caught:
        program.glyph_in(path)
    assert "\n" not in str(caught.value)


def test_languages_take_their_own_files(glyphpress, tmp_path: Path) -> None:
    digit_files(tmp_path)
    for name, language in LANGUAGES.items():
        for other in (each for each in NAMES if not each.endswith(tuple(language.packages))):
            ran = glyphpress("snippet", tmp_path / other, "--for", name)
            assert (ran.code, ran.out) == (2, "")
            assert "that was made with it, or --for" in ran.err
    ran = glyphpress("snippet", tmp_path / NAMES[2], "--for", "javascript")
    assert "give the .onnx that was made with it, or --for python-litert, web or java-android" in ran.err
    plugged = replace(load_artifact(tmp_path / NAMES[0]), format="linear")  # as a plug-in's files are
    for name in (None, "web"):
        with pytest.raises(UsageProblem, match=r"opens no \.linear such as digits\.float\.onnx; give the \.onnx"):
            snippet(plugged, name)


def test_a_file_without_a_sidecar_is_refused_with_the_command_that_writes_it(glyphpress, tmp_path: Path) -> None:
    path = linear_reader(tmp_path / "reader.onnx")
    path.with_name("reader.onnx.json").unlink()
    for words in (["snippet", path], ["deploy", path, "ssh://pi@kitchen"]):
        ran = glyphpress(*words)
        assert (ran.code, ran.out) == (3, "")
        assert f"`glyphpress adopt {path} --data DATA`" in ran.err


def test_every_language_can_be_chosen() -> None:
    (choice,) = [option.type for option in command.params if option.name == "language"]
    assert list(choice.choices) == list(LANGUAGES)
