"""words.mjs and ink.mjs against words.py and ink.py, on the same pictures."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibration.words
from bench.words import composed
from calibration.builtin import digits
from calibration.errors import CorruptData
from calibration.load import load
from calibration.words import cut
from tests.fixtures.drawn_lines import drawn, grainy, shaded
from tests.fixtures.pen import sheet, written_words

Gray = np.ndarray
MODULE = Path(calibration.words.__file__).with_suffix(".mjs")
# Each picture is on a line as width, height and pixels.
SCRIPT = """
const { cut } = await import(process.argv[1]);
const { createInterface } = await import("node:readline");
for await (const line of createInterface({ input: process.stdin })) {
  const [width, height, text] = JSON.parse(line);
  let answer;
  try {
    answer = cut({ width, height, pixels: new Uint8Array(Buffer.from(text, "base64")) });
    answer.characters.forEach((each) => (each.glyph = [...each.glyph.pixels]));
  } catch (error) {
    answer = { refused: error.message, kind: error.constructor.name };
  }
  console.log(JSON.stringify(answer));
}
"""
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no node: words.mjs NOT checked")


class JavaScript:
    """A node process that cuts pictures; one for all tests, since it compiles anew in each."""

    def __init__(self) -> None:
        command = ["node", "--input-type=module", "-e", SCRIPT, str(MODULE)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def cut(self, picture: Gray) -> dict[str, Any]:
        """Return what the script prints for a picture; fails where it has ended."""
        assert self.process.stdin
        assert self.process.stdout
        height, width = picture.shape
        print(json.dumps([width, height, base64.b64encode(picture.tobytes()).decode()]), file=self.process.stdin)
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def javascript() -> Iterator[JavaScript]:
    one = JavaScript()
    yield one
    assert one.process.stdin
    one.process.stdin.close()
    assert one.process.wait(10) == 0


def cut_by_python(picture: Gray) -> dict[str, Any]:
    """Return what the script above prints for a picture."""
    try:
        writing = cut(picture)
    except CorruptData as error:
        return {"refused": str(error).split(";")[0], "kind": "Blank"}
    characters = [
        {"box": list(each.box), **{key: getattr(each, key) for key in ("glyph", "line", "space", "mark", "joined")}}
        for each in writing.characters
    ]
    return {"paper": writing.paper, "characters": characters, "rules": writing.rules}


def assert_cut_alike(pictures: Sequence[Gray], javascript: JavaScript) -> int:
    """Compare both on every picture; return the number of characters."""
    count = 0
    for number, picture in enumerate(pictures):
        answer, expected = javascript.cut(picture), cut_by_python(picture)
        sides = [[each.pop("glyph") for each in side.get("characters", [])] for side in (answer, expected)]
        assert answer == expected, number
        glyphs, own = (np.array(side, int).reshape(-1, 28, 28) for side in sides)
        assert np.abs(glyphs - own).max(initial=0) <= 2, number
        count += len(own)
    return count


def _cropped(gray: Gray) -> Gray:
    rows, columns = np.flatnonzero((gray < 128).any(1)), np.flatnonzero((gray < 128).any(0))
    return gray[max(rows[0] - 25, 0) : rows[-1] + 25, max(columns[0] - 25, 0) : columns[-1] + 25].copy()


def test_written_words_are_cut_as_in_python(javascript: JavaScript) -> None:
    """36 words as a pointer draws them, and numbers composed of real digits with grain, specks, shadow and slant."""
    words = [_cropped(sheet(word, thick=thick)) for word, thick in zip(written_words(), (5, 9, 14) * 12, strict=True)]
    numbers = [word.picture for word in composed(digits("test"), 3, 30, ("1812", "42", "365", "70", "99", "2026"))]
    assert assert_cut_alike(words + numbers, javascript) > 200


def _on_other_paper() -> list[Gray]:
    page = np.asarray(drawn(["HE TiL", "LET"], size=40))
    pale = (page // 6 + 150).astype(np.uint8)
    return [255 - page, shaded(page), 255 - shaded(page), grainy(page), 255 - grainy(page), pale]


def _of_many_shapes() -> list[Gray]:
    lines = ["HiTiL", "Hjij", "H=L", "L:T", "T5E5", "HE LL", "a Ha", "HE.", "L", "i", "=", ":", "."]
    pages = [drawn([line], size=size) for size, line in zip((24, 40, 61) * 5, lines, strict=False)]
    pages += [drawn(["HiTEL", "LET", "a5 = T:E"], gap=gap, size=size) for gap in (0.2, 0.45) for size in (20, 48)]
    pages += [drawn(["HEL LET", "THE TEE i HEEL", "TELL"], slant=slant, size=30) for slant in (-0.08, -0.03, 0.05)]
    # Letters that touch, and letters under the bar of another.
    pages += [drawn(["HHH EEE", "LTT"], gap=gap, size=50) for gap in (-0.3, -0.2, -0.1, 0.0)]
    return [np.asarray(page) for page in pages]


def _ruled() -> list[Gray]:
    sheet = np.full((260, 900), 255, np.uint8)
    page = np.asarray(drawn(["HE", "TH"], size=40))
    sheet[30 : 30 + page.shape[0], 40 : 40 + page.shape[1]] = page
    below, framed = sheet.copy(), sheet.copy()
    below[-20:-18, 10:-10] = 0
    framed[4:6] = framed[-6:-4] = framed[:, 4:6] = framed[:, -6:-4] = 0
    crossed = sheet.copy()
    crossed[80:82, 10:-10] = 0
    return [below, framed, crossed]


def _large() -> Gray:
    """Return a picture of which only some pixels are looked at for its paper and its grain."""
    return np.kron(grainy(np.asarray(drawn(["HE Ti"], size=60))), np.ones((5, 5), np.uint8))


def test_shapes_papers_and_rules_are_cut_as_in_python(javascript: JavaScript) -> None:
    """Several lines, dots, broken letters, signs, touching letters, slants, white on black, shadow, rules, noise."""
    pictures = [*_of_many_shapes(), *_on_other_paper(), *_ruled(), _large()]
    assert assert_cut_alike(pictures, javascript) > 200


def _refused() -> list[Gray]:
    rng = np.random.default_rng(2)
    specks, rule, crowd = (np.full((200, 300), 255, np.uint8) for _ in range(3))
    specks[20::30, 20::30] = 0
    rule[100, 2:-2] = 0
    crowd = np.full((1000, 1000), 255, np.uint8)
    for row, column in ((y, x) for y in range(2) for x in range(2)):
        crowd[1 + row :: 5, 1 + column :: 5] = 0
    return [
        np.full((400, 1000), 255, np.uint8),
        np.zeros((1, 1), np.uint8),
        np.array([[0, 255]], np.uint8),
        np.linspace(90, 255, 20_000).reshape(100, 200).astype(np.uint8),
        rng.integers(0, 256, (200, 300)).astype(np.uint8),
        np.where(rng.random((300, 300)) < 0.1, 0, 255).astype(np.uint8),
        specks,
        rule,
        crowd,
    ]


def test_what_holds_no_writing_is_refused_in_the_same_words(javascript: JavaScript) -> None:
    pictures = _refused()
    for picture in pictures:
        with pytest.raises(CorruptData):
            cut(picture)
    assert assert_cut_alike(pictures, javascript) == 0


def test_words_of_real_letters_are_cut_as_in_python(emnist_root: Path, javascript: JavaScript) -> None:
    data = load(f"{emnist_root / 'resplit'}:balanced", "test").in_memory()
    assert assert_cut_alike([word.picture for word in composed(data, 5, 40)], javascript) > 120
