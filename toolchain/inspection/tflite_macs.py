"""Multiply-accumulates of TFLite operators, from the shapes of what they read and write."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

Shape = tuple[int, ...]

_LEFT_OUT = (
    "CUSTOM", "DELEGATE", "WHILE", "IF", "CALL", "CALL_ONCE", "RFFT2D", "LSTM", "SVDF", "RNN", "CONV_3D_TRANSPOSE",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM", "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL", "STABLEHLO_COMPOSITE", "STABLEHLO_CUSTOM_CALL", "STABLEHLO_WHILE",
)  # fmt: skip
_LSTM_WEIGHTS = slice(1, 9)
_LSTM_PROJECTION = slice(16, 17)


def tflite_macs(kind: str, read: list[Shape], made: Shape, *, turned: bool) -> int | None:
    """Return an operator's products; None of one that multiplies and that nobody counts.

    read: the shapes of its inputs, empty for those that are left out. turned: whether a matrix product reads its first
    input with the last two axes exchanged.
    """
    if kind in _LEFT_OUT:
        return None
    rule = _RULES.get(kind)
    if rule is None:
        return 0
    return prod(made) * read[0][-2] if turned else rule(read, made)


def _sequence(read: list[Shape], _: Shape) -> int:
    weights = [*read[_LSTM_WEIGHTS], *read[_LSTM_PROJECTION]]
    return prod(read[0][:2]) * sum(prod(shape) for shape in weights if shape)


_RULES: dict[str, Callable[[list[Shape], Shape], int]] = {
    "CONV_2D": lambda read, made: prod(made) * prod(read[1][1:]),
    "CONV_3D": lambda read, made: prod(made) * prod(read[1][:-1]),
    "DEPTHWISE_CONV_2D": lambda read, made: prod(made) * prod(read[1][1:3]),
    "TRANSPOSE_CONV": lambda read, _: prod(read[2]) * prod(read[1][:3]),
    "FULLY_CONNECTED": lambda read, made: prod(made) * read[1][-1],
    "BATCH_MATMUL": lambda read, made: prod(made) * read[0][-1],
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence,
}
