"""Operators of a TFLite file that stay float while the rest is quantized."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from toolchain.formats.graph import chosen
from toolchain.formats.tflite.layers import parsed, tflite_graph
from toolchain.quantize.step import Quantize
from toolchain.quantize.unsuited_tflite import unsuited

if TYPE_CHECKING:
    from litert_quantizer.quantizer import Quantizer


def keep_float(quantizer: Quantizer, source: bytes, step: Quantize, file: str) -> None:
    """Tell the quantizer to leave out the step's layers to keep, and what integers cannot do (`unsuited`).

    Bodies of loops and reductions, which are subgraphs behind the first, are given float tensors. Raises UsageProblem
    as `chosen` does.
    """
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName

    model = parsed(source)
    main, *bodies = model.subgraphs
    written = [(body, node.outputs) for body in bodies for node in body.operators]
    # What goes in and out counts as written by operators too.
    written += [(body, tensors) for body in bodies for tensors in (body.inputs, body.outputs)]
    if step.keep:
        layers = chosen(tflite_graph(model), step.keep, file)
        written += [(main, main.operators[layer.node].outputs) for layer in layers]
    if step.calibrated:
        written += [(main, node.outputs) for node in unsuited(model, wide=step.scheme == "static-int8-act16")]
    for graph, tensors in written:
        # An operator's scope is the names of what it writes, with a semicolon behind each.
        scope = "".join(f"{graph.tensors[index].name.decode()};" for index in tensors)
        quantizer.update_quantization_recipe(
            f"^{re.escape(scope)}$", TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
