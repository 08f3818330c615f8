"""The target `numpy`: runs `.linear` files by a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glyphpress.plugins import Artifact, LocalTarget, RuntimeFacts, RuntimeSession, TensorCodec, cpu_name
from glyphpress_example.linear_format import read_linear

Array = NDArray[Any]


class NumpyTarget(LocalTarget):
    """A matrix product of numpy, for .linear files."""

    name = "numpy"
    formats = frozenset({"linear"})  # type: ignore[arg-type]  # a format of this package

    def require(self) -> None:
        """See `LocalTarget.require`: numpy is always here."""

    def open(self, artifact: Artifact, *, threads: int = 1) -> NumpySession:  # noqa: ARG002 (one core, whatever is asked)
        """Read the weights."""
        start = perf_counter_ns()
        weights = read_linear(artifact.path)
        facts = RuntimeFacts(self.name, "numpy", np.__version__, cpu_name(), 1)
        return NumpySession(artifact, facts, weights, perf_counter_ns() - start)


class NumpySession(RuntimeSession):
    """The weights of an open file; the base applies the preprocess, makes batches and takes the time."""

    def __init__(self, artifact: Artifact, facts: RuntimeFacts, weights: tuple[Array, Array], load_ns: int) -> None:
        """Take what was read."""
        self.weights, self.bias = weights
        source, sink = TensorCodec(artifact.inputs[0]), TensorCodec(artifact.outputs[0])
        super().__init__(artifact, facts, source, sink, batch=256, load_ns=load_ns)

    def _infer(self, batch: Array) -> Array:
        logits: Array = batch.reshape(len(batch), -1) @ self.weights.T + self.bias
        return logits

    def _prepared(self, batch: Array) -> Callable[[], object]:
        return lambda: self._infer(batch)

    def __exit__(self, *_error: object) -> None:
        """Have nothing to release."""
