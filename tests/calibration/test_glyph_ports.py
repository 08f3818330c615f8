"""glyph.mjs, glyph.cpp and glyph.java against glyph.py, on the same drawings."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import calibration.glyph
from calibration.glyph import glyph
from tests.fixtures.native_programs import java, run

MODULE = Path(calibration.glyph.__file__).with_suffix(".mjs")
SCRIPT = """
const { glyph, picture } = await import(process.argv[1]);
let text = "";
for await (const chunk of process.stdin) text += chunk;
const read = ([width, height, pixels]) => picture(width, height, new Uint8Array(Buffer.from(pixels, "base64")));
console.log(JSON.stringify(JSON.parse(text).map((drawing) => [...glyph(read(drawing)).pixels])));
"""
CPP = """
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <vector>

#include "glyph.cpp"

int main() {
  int width, height;
  while (std::scanf("%d %d ", &width, &height) == 2) {
    Picture drawing(width, height);
    for (uint8_t& level : drawing.pixels) std::scanf("%hhu", &level);
    for (uint8_t level : glyph(drawing).pixels) std::printf("%d ", level);
  }
}
"""
JAVA = """
import java.util.Scanner;

final class Main {
  public static void main(String[] words) {
    Scanner told = new Scanner(System.in);
    while (told.hasNextInt()) {
      Picture drawing = new Picture(told.nextInt(), told.nextInt());
      for (int k = 0; k < drawing.pixels.length; k++) drawing.pixels[k] = told.nextInt();
      for (int level : Glyph.of(drawing).pixels) System.out.print(level + " ");
    }
  }
}
"""


def drawings() -> list[np.ndarray]:
    """Return 60 seeded drawings: 20 to 700 pixels, thin and thick strokes, light or dark paper, with noise."""
    rng = np.random.default_rng(17)
    made = []
    for number in range(60):
        width, height = (28, 28) if number % 10 == 0 else map(int, rng.integers(20, 700, 2))
        sheet = Image.new("L", (width, height), 255)
        for _ in range(rng.integers(1, 4)):
            points = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(rng.integers(2, 6))]
            thick = max(3, max(width, height) // 30)
            ImageDraw.Draw(sheet).line(points, fill=int(rng.integers(80)), width=thick, joint="curve")
        levels = np.asarray(sheet) + rng.normal(0, rng.choice([0, 3]), (height, width))
        pixels = np.clip(levels, 0, 255).astype(np.uint8)
        made.append(255 - pixels if number % 3 == 0 else pixels)
    return made


@pytest.mark.skipif(not shutil.which("node"), reason="no node: glyph.mjs NOT checked")
def test_the_javascript_port_gives_the_pixels_of_glyph() -> None:
    scans = drawings()
    shapes = [[scan.shape[1], scan.shape[0], base64.b64encode(scan.tobytes()).decode()] for scan in scans]
    command = ["node", "--input-type=module", "-e", SCRIPT, str(MODULE)]
    done = subprocess.run(command, input=json.dumps(shapes), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), scans)


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++: glyph.cpp NOT checked")
def test_the_cpp_port_gives_the_pixels_of_glyph(tmp_path: Path) -> None:
    scans = drawings()
    (tmp_path / "main.cpp").write_text(CPP)
    flags = ["-std=c++17", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", f"-I{MODULE.parent}"]
    run(["g++", *flags, tmp_path / "main.cpp", "-o", tmp_path / "main"])
    check(run([tmp_path / "main"], told(scans)).split(), scans)


@pytest.mark.skipif(not shutil.which("javac"), reason="no javac: glyph.java NOT checked")
def test_the_java_port_gives_the_pixels_of_glyph(tmp_path: Path) -> None:
    scans = drawings()
    (tmp_path / "Main.java").write_text(JAVA + MODULE.with_suffix(".java").read_text())
    main = java(tmp_path, [tmp_path / "Main.java"])
    check(run([*main, "Main"], told(scans)).split(), scans)


def told(scans: list[np.ndarray]) -> str:
    """Return width, height and pixels of all scans as numbers."""
    return "\n".join(f"{scan.shape[1]} {scan.shape[0]} {' '.join(map(str, scan.ravel()))}" for scan in scans)


def check(pixels: list[Any], scans: list[np.ndarray]) -> None:
    """Compare the pixels of all glyphs, in one row, with those of glyph.py."""
    answers = np.array(pixels, int).reshape(-1, 28, 28)
    assert len(answers) == len(scans)
    for number, (scan, answer) in enumerate(zip(scans, answers, strict=True)):
        assert np.abs(glyph(scan).astype(int) - answer).max() <= 2, number
