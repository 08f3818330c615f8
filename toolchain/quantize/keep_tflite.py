"""Layers of a TFLite file that stay float while the rest is quantized."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from toolchain.layers.chosen import chosen
from toolchain.layers.tflite_graph import parsed, tflite_graph

if TYPE_CHECKING:
    from litert_quantizer.quantizer import Quantizer


def keep_float(quantizer: Quantizer, source: bytes, keep: Collection[str], file: str) -> None:
    """Tell the quantizer to leave these layers out; raises UsageProblem as `chosen` does."""
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName

    if not keep:
        return
    model = parsed(source)
    graph = tflite_graph(model)
    tensors = model.subgraphs[0].tensors
    for layer in chosen(graph, keep, file):
        # An operator's scope is the names of what it writes, with a semicolon behind each.
        scope = "".join(f"{tensors[int(key)].name.decode()};" for key in graph.nodes[layer.node].outputs)
        quantizer.update_quantization_recipe(
            f"^{re.escape(scope)}$", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
