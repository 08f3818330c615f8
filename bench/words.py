"""How well words are cut and read: `python -m bench.words DIR:balanced`, three minutes; writes `results/words.json`.

Words are composed of real test glyphs, as `compose` says; what it says decides the figures. The constants of
`calibration.words`, `calibration.ink` and `toolchain.evaluation.word_context` were chosen on the words of TUNED; what
is reported is of REPORTED, which nothing was chosen by.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.dataset import Dataset
from calibration.errors import CorruptData
from calibration.load import load
from calibration.words import Writing, cut
from targets.session import Session
from toolchain import models
from toolchain.commands.read import shipped
from toolchain.core.context import RunContext
from toolchain.core.files import write_whole
from toolchain.evaluation.word_context import in_words, probabilities
from toolchain.gate.candidate import open_session

Gray = NDArray[np.uint8]
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]

RESULTS = Path(__file__).resolve().parent / "results" / "words.json"
SCHEMA = "glyphpress/words/1"
TUNED, REPORTED = (1, 3, 4), 2
"""Seeds."""
WORDS = 300
TALL, SMALL, LONG = 1.0, 0.7, 0.95
"""Longer side of a capital, digit or letter with an ascender; of a small letter; of one with a descender."""
SMALL_LETTERS, LONG_LETTERS = "aceimnorsuvwxz", "gjpqy"
ALIKE = {"O": "0", "I": "1", "L": "1"}
INK_FROM = 0.4
"""Share of full ink from which a pixel counts where two glyphs are set close."""
_TEXT = (
    "about after again all and apple are ask away back bad bag ball bank barn bath beach bear because bed before "
    "best big bird black blue boat body book both box boy bread bring brother brown build bus but call can car "
    "carry cat chair change child city clean close cloud coat cold come cook could cow cut day deep desk door down "
    "draw dream drink drive each early earth east eat egg end every eye face family far farm fast father feet field "
    "find fire first fish five floor flower fly food foot four friend frog from fruit full game garden girl give "
    "glass goat gold good grass great green ground grow hand happy hat have head hear heart help here high hill "
    "home horse hot house how ice into island jam job join jump just keep key kind king kitchen know lake lamp land "
    "large last laugh leaf learn left letter light line lion listen little long look low make man many map market "
    "milk mind moon more morning mother mountain mouse move much music name near never new next night nine nose "
    "north note number ocean often old one only open orange other our out over own page paint paper park part pen "
    "people piano pick picture place plant play point pond queen question quick quiet rain read ready red rest rice "
    "ring river road rock room round run sail salt same sand school sea seed seven shape sheep ship shoe short show "
    "side sing sister six sky sleep slow small snow some song soon south spring star start step stone stop story "
    "street strong summer sun table take talk tall teach tell ten thank thing think three time today tooth top town "
    "train tree truck true turn two under until up use valley very village voice wait walk wall want warm wash "
    "watch water week well west wheel white who wide wild wind winter wish wolf wood word work world write yard "
    "year yellow yes young zebra zero zoo 10 1812 1999 2026 365 42 7 room12 flat4b route66 no9 b12 a4 x3"
)
VOCABULARY = tuple(_TEXT.split())


@dataclass(frozen=True)
class Word:
    """A composed picture. indices: of its glyphs in the data set. joints: by how much columns overlap, in pixels."""

    text: str
    picture: Gray = field(repr=False)
    indices: tuple[int, ...]
    joints: tuple[int, ...]


def compose(text: str, data: Dataset, rng: np.random.Generator) -> Word:
    """Compose a word of random glyphs of its letters' classes.

    Capitals are 28 to 90 pixels high, small letters 0.7 of that; each glyph differs by up to 12 % in size and 4 % in
    its place on the baseline. The usual gap of the word is 0.06 to 0.3 heights, each gap 0.6 to 1.4 of that; one joint
    in seven is set close instead: the second glyph moves under or over the first until their ink is 0.06 heights apart
    (3 pixels at least) or their columns overlap by 0.4 of the narrower glyph. The baseline slants by up to 6 degrees.
    The pen presses unevenly (0.65 to 1), the paper is grainy (up to 8 levels), has specks and light that falls off by
    up to a quarter; one word in eight is white on black. Letters never touch.
    """
    size = rng.uniform(28, 90)
    usual = rng.uniform(0.06, 0.3) * size
    ink = np.zeros((int(size * 3), int(size * (1.6 * len(text) + 3))), np.float32)
    baseline, right = size * 1.9, size
    indices, joints = [], []
    for place, letter in enumerate(text):
        index = int(rng.choice(_of_class(letter, data)))
        drawn = _drawn(data.images[index], size * _longer(letter) * rng.uniform(0.88, 1.12))
        foot = baseline + size * (0.25 * (letter in LONG_LETTERS) + rng.uniform(-0.04, 0.04))
        top = round(foot - drawn.shape[0])
        left = round(right + usual * rng.uniform(0.6, 1.4)) if place else round(right)
        if place and rng.random() < 1 / 7:
            left = _close(ink, drawn, top, round(right), size)
        joints.append(max(0, round(right) - left))
        spot = ink[top : top + drawn.shape[0], left : left + drawn.shape[1]]
        np.maximum(spot, drawn, out=spot)
        right = max(right, left + drawn.shape[1])
        indices.append(index)
    return Word(text, _scanned(ink[:, : int(right + size)], size, rng), tuple(indices), tuple(joints[1:]))


def _of_class(letter: str, data: Dataset) -> NDArray[np.int64]:
    name = letter if letter in data.classes else letter.swapcase()
    return np.flatnonzero(data.labels == data.classes.index(name))


def _longer(letter: str) -> float:
    """Return the longer side of a letter in heights of a capital."""
    if letter in LONG_LETTERS:
        return LONG
    return SMALL if letter in SMALL_LETTERS else TALL


def _drawn(image: Gray, longer: float) -> Floats:
    """Return the ink of a glyph, 0 to 1, enlarged so that its longer side has `longer` pixels."""
    rows, columns = np.flatnonzero((image > 40).any(1)), np.flatnonzero((image > 40).any(0))
    cut = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = longer / max(cut.size)
    large = cut.resize((max(2, round(cut.width * scale)), max(2, round(cut.height * scale))), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float32) / 255


def _close(ink: Floats, drawn: Floats, top: int, right: int, size: float) -> int:
    """Return the leftmost place of a glyph at which it neither comes too near to the ink nor overlaps too far."""
    from scipy import ndimage

    gap = max(3, round(0.06 * size))
    taken = ndimage.binary_dilation(ink > INK_FROM, iterations=gap)
    inked = drawn > INK_FROM
    columns = np.flatnonzero((ink > INK_FROM).any(0))
    before = _last_width(columns)
    left = right + gap
    while (
        right - left + 1 < 0.4 * min(drawn.shape[1], before)
        and not (taken[top : top + drawn.shape[0], left - 1 : left - 1 + drawn.shape[1]] & inked).any()
    ):
        left -= 1
    return left


def _last_width(columns: NDArray[np.int64]) -> int:
    """Return the number of columns in the last run of inked ones."""
    breaks = np.flatnonzero(np.diff(columns) > 1)
    return int(columns[-1] - (columns[breaks[-1] + 1] if len(breaks) else columns[0])) + 1


def _scanned(ink: Floats, size: float, rng: np.random.Generator) -> Gray:
    """Return the ink on paper, uint8: slanted, with an uneven pen, grain, specks and light that falls off."""
    from scipy import ndimage

    slanted = ndimage.rotate(ink, rng.uniform(-6, 6), order=1, reshape=True)
    rows, columns = np.flatnonzero((slanted > 0.2).any(1)), np.flatnonzero((slanted > 0.2).any(0))
    margin = round(size * rng.uniform(0.2, 0.6))
    slanted = np.pad(slanted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin)
    press = ndimage.gaussian_filter(rng.normal(size=slanted.shape), size / 8)
    press = 0.825 + 0.175 * np.clip(press / (press.std() * 2), -1, 1)
    for _ in range(rng.integers(0, 6)):
        y, x = (rng.integers(0, length) for length in slanted.shape)
        slanted[y : y + 2, x : x + rng.integers(1, 3)] = 1
    paper, dark = rng.uniform(190, 255), rng.uniform(0, 90)
    height, width = slanted.shape
    angle = rng.uniform(0, 2 * np.pi)
    across = np.add.outer(np.sin(angle) * np.linspace(-0.5, 0.5, height), np.cos(angle) * np.linspace(-0.5, 0.5, width))
    light = 1 - rng.uniform(0, 0.25) * (across / np.ptp(across) + 0.5)
    picture = (paper + (dark - paper) * slanted * press) * light + rng.normal(0, rng.uniform(0, 8), slanted.shape)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    return 255 - picture if rng.random() < 1 / 8 else picture


def composed(data: Dataset, seed: int, count: int = WORDS, vocabulary: Sequence[str] = VOCABULARY) -> list[Word]:
    """Return words drawn from a vocabulary: in small letters, in capitals, or with a capital first."""
    rng = np.random.default_rng(seed)
    forms = (str.lower, str.upper, str.capitalize)
    return [compose(forms[rng.integers(3)](str(rng.choice(vocabulary))), data, rng) for _ in range(count)]


@dataclass(frozen=True)
class Cutting:
    """words: how many. right: how many were cut into the right number of characters, one line and one word.

    count_right: how many into the right number of characters. close_joints: share of joints with overlapping columns.
    """

    words: int
    right: int
    count_right: int
    close_joints: float


@dataclass(frozen=True)
class Accuracy:
    """Shares of characters that a model reads right, of all words that were cut into the right number of characters.

    own: the data set's own glyphs, one by one. cut: as they were cut out of the words, one by one. own_alike,
    cut_alike: both, where 0 and O count as one class, and 1, I and L. own_in_words, cut_in_words: both, read as letters
    or digits by their words. all_cut_in_words: of all words, where a character of a word that was cut into another
    number counts as wrong.
    """

    model: str
    characters: int
    own: float
    cut: float
    own_alike: float
    cut_alike: float
    own_in_words: float
    cut_in_words: float
    all_cut_in_words: float


def cut_or_none(word: Word) -> Writing | None:
    """Return the word as it was cut, None where nothing was found."""
    try:
        return cut(word.picture)
    except CorruptData:
        return None


def glyphs_of(writing: Writing | None) -> Gray:
    """Return the glyphs of the characters without marks, which a reader of letters and digits leaves out."""
    kept = [each.glyph for each in writing.characters if not each.mark] if writing else []
    return np.array(kept, np.uint8).reshape(-1, 28, 28)


def cutting(words: Sequence[Word], writings: Sequence[Writing | None]) -> Cutting:
    """Return how many words were cut right."""
    pairs = list(zip(words, writings, strict=True))
    counted = [len(glyphs_of(writing)) == len(word.text) for word, writing in pairs]
    whole = [
        writing is not None and not any(each.space or each.line for each in writing.characters if not each.mark)
        for _, writing in pairs
    ]
    joints = [joint > 0 for word in words for joint in word.joints]
    both = sum(right and one for right, one in zip(counted, whole, strict=True))
    return Cutting(len(words), both, sum(counted), round(float(np.mean(joints)), 4))


def accuracy(session: Session, data: Dataset, words: Sequence[Word], writings: Sequence[Writing | None]) -> Accuracy:
    """Return how well a model reads the words, and their glyphs in the data set."""
    classes, every = data.classes, sum(len(word.text) for word in words)
    alike = np.array([classes.index(ALIKE.get(name, name)) for name in classes])
    hits, characters = np.zeros(6), 0
    for word, writing in zip(words, writings, strict=True):
        glyphs, indices = glyphs_of(writing), np.array(word.indices)
        if len(glyphs) != len(word.text):
            continue
        labels, row = data.labels[indices], [range(len(indices))]
        chances = [probabilities(session.run(images)) for images in (np.asarray(data.images[indices]), glyphs)]
        alone, together = [each.argmax(1) for each in chances], [in_words(each, row, classes) for each in chances]
        right = [each == labels for each in alone] + [alike[each] == alike[labels] for each in alone]
        hits += [np.count_nonzero(each) for each in (*right, *(each == labels for each in together))]
        characters += len(indices)
    shares = [round(float(hit) / characters, 4) for hit in hits]
    return Accuracy(session.artifact.path.name, characters, *shares, round(float(hits[5]) / every, 4))


def main(spec: str) -> None:
    """Measure the shipped models on the words of REPORTED, print the figures and store them."""
    data = load(spec, "test").in_memory()
    words = composed(data, REPORTED)
    writings = [cut_or_none(word) for word in words]
    cuts, rows = cutting(words, writings), []
    print(cuts)
    for name in models.shipped_names():
        with open_session(shipped(name, None, RunContext())) as session:
            rows.append(accuracy(session, data, words, writings))
        print(rows[-1])
    results = {"schema": SCHEMA, "data": data.origin, "data_sha256": data.sha256, "seed": REPORTED}
    results |= {"cutting": asdict(cuts), "accuracy": [asdict(row) for row in rows]}
    write_whole(RESULTS, json.dumps(results, indent=2) + "\n", force=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.words DATA, where DATA is a balanced split such as emnist:balanced")
    main(sys.argv[1])
