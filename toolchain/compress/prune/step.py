"""Prune: what of a model goes."""

from __future__ import annotations

from toolchain.checkpoint.float_model import FloatModel
from toolchain.compress.prune.settings import PruneSettings
from toolchain.compress.step import StepContext


class Prune(PruneSettings):
    """Pruning, and fine-tuning of what is left.

    structured: whole channels go, and the file with them. magnitude: single weights become zero (Han,
    arXiv:1506.02626). n:m: of each m weights along the inputs the n largest stay (Mishra, arXiv:2104.08378). Zeros
    make a file neither smaller nor faster until it is packed.

    How much goes is said once: by `ratio`, by a budget (`macs`, `parameters` or `bytes`), by `layers`, or by `layers`
    with `ratio` for all others; n:m says it by `pattern`.
    """

    def check(self, model: FloatModel, context: StepContext) -> None:
        """Raise what pruning would raise before it trains: layers or budgets that the model cannot have."""
        from toolchain.compress.prune.stage import planned
        from toolchain.training.fit import torch_threads

        with torch_threads(context.run.threads):
            planned(model, self, context.train, seed=context.run.seed)

    def apply(self, model: FloatModel, context: StepContext) -> FloatModel:
        """Return the pruned and fine-tuned model."""
        from toolchain.compress.prune.stage import prune

        return prune(model, self, context.train, context=context.run)
