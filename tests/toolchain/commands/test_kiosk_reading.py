"""The page's words of a reading (reading.mjs) against word_context.py and calibration.words, on the same answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from calibration.words import Character, Writing
from toolchain.commands.kiosk import OWN_PAGE
from toolchain.evaluation.word_context import in_words, probabilities

BALANCED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
SCRIPT = """
const { inWords, probabilities, textOf, wordsOf } = await import(process.argv[1]);
let told = "";
for await (const chunk of process.stdin) told += chunk;
console.log(JSON.stringify(JSON.parse(told).map(({ classes, logits, characters }) => {
  const chances = probabilities(logits);
  const words = wordsOf(characters);
  const read = inWords(chances, words, classes);
  return { chances, read, text: textOf(characters, read.map((label) => classes[label])) };
})));
"""


def answered() -> list[dict[str, Any]]:
    """Return 80 seeded writings: logits or probabilities of characters in lines and words, of several classes."""
    rng = np.random.default_rng(5)
    cases = []
    for number in range(80):
        classes = [BALANCED, tuple("0123456789"), BALANCED, ("0", "1", "O", "I", "ab", "ß")][number % 4]
        count = int(rng.integers(1, 12))
        logits = rng.normal(0, rng.choice([1, 3, 8]), (count, len(classes))).astype(np.float32)
        if number % 5 == 0:
            logits = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
        lines, spaces = np.sort(rng.integers(0, 3, count)).tolist(), (rng.random(count) < 0.3).tolist()
        characters = [{"line": line, "space": space} for line, space in zip(lines, spaces, strict=True)]
        cases.append({"classes": classes, "logits": logits, "characters": characters})
    return cases


def read_by_python(case: dict[str, Any]) -> dict[str, Any]:
    characters, words, line = [], [], None
    for row, each in enumerate(case["characters"]):
        characters.append(Character((0, 0, 1, 1), np.zeros((28, 28), np.uint8), **each, mark=False, joined=False))
        if each["space"] or each["line"] != line:
            words.append([])
        words[-1].append(row)
        line = each["line"]
    chances = probabilities(case["logits"])
    read = in_words(chances, words, case["classes"])
    writing = Writing(np.zeros((1, 1), np.uint8), "light", tuple(characters))
    return {"chances": chances, "read": read.tolist(), "text": writing.text([case["classes"][label] for label in read])}


@pytest.mark.skipif(not shutil.which("node"), reason="no node: reading.mjs NOT checked")
def test_the_page_reads_letters_and_digits_by_their_words_as_python_does() -> None:
    cases = answered()
    told = json.dumps([{**case, "logits": case["logits"].tolist()} for case in cases])
    command = ["node", "--input-type=module", "-e", SCRIPT, str(OWN_PAGE / "reading.mjs")]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    changed = 0
    for number, (case, answer) in enumerate(zip(cases, json.loads(done.stdout), strict=True)):
        expected = read_by_python(case)
        chances = expected.pop("chances")
        assert np.allclose(chances, answer.pop("chances"), atol=1e-12), number
        assert answer == expected, number
        changed += expected["read"] != chances.argmax(1).tolist()
    assert changed > 10, "words change some readings"
