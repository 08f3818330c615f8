"""Letters and digits that look alike are read as what stands around them in their word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolchain.evaluation.evaluate import are_probabilities

Floats = NDArray[np.float64]

STRENGTH = 3.0
"""Largest advantage of a letter over a digit, or the reverse, that its neighbours can give, as a logarithm of odds."""
_FAR = 0.6
"""What a neighbour counts, with each further place."""
_SURE = 4.0
"""Largest log odds of a neighbour: one that is certain cannot outvote all others."""


def probabilities(logits: NDArray[np.float32]) -> Floats:
    """Return the probability of each class, float64 [N, K]: the softmax, or the answers themselves if they are that."""
    scores = logits.astype(np.float64)
    if are_probabilities(logits):
        return np.asarray(scores / scores.sum(1, keepdims=True))
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def in_words(chances: Floats, words: Sequence[Sequence[int]], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the class that each character is read as, int64 [N].

    chances: probabilities, [N, K]. words: the rows of each word, in order. A character of a word of letters is read as
    the likeliest letter where the model finds a digit only a little likelier, by at most STRENGTH, and the reverse.
    Nothing changes where the classes are all letters or all digits, or a word is one character.
    """
    read: NDArray[np.int64] = np.argmax(chances, 1)
    letters = np.array([len(name) == 1 and name.isalpha() for name in classes])
    digits = np.array([len(name) == 1 and name.isdigit() for name in classes])
    if not (letters.any() and digits.any()):
        return read
    tiny = 1e-9
    odds = np.log(chances[:, letters].sum(1) + tiny) - np.log(chances[:, digits].sum(1) + tiny)
    odds = np.clip(odds, -_SURE, _SURE)
    kind = letters.astype(np.float64) - digits
    for word in words:
        rows, places = np.array(word), np.arange(len(word))
        weights = _FAR ** np.abs(places[:, None] - places)
        np.fill_diagonal(weights, 0)
        around = (weights @ odds[rows]) / np.maximum(weights.sum(1), tiny)
        favour = STRENGTH * np.tanh(around / 2)
        read[rows] = np.argmax(np.log(chances[rows] + tiny) + favour[:, None] / 2 * kind, 1)
    return read
