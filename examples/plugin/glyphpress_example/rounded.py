"""The scheme `rounded`: float32 weights with the precision of bfloat16, and a recipe that uses it.

Files run everywhere at float's speed and are as large as before, but half of their bytes are zero: packed, as an update
carries them, they are about half as large (`[packed]` of a policy).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glyphpress.plugins import Artifact, Quantize, Recipe, Scheme, StageError


def rounded(artifact: Artifact, step: Quantize, _ranges: None, _log: Path | None) -> bytes:
    """Return an ONNX file whose float32 weights are rounded to 8 significant bits, to even where two are as near."""
    import onnx
    from onnx import numpy_helper

    if step.keep:
        raise StageError("rounded weights are float32 in every layer; leave `keep` out")
    model = onnx.load(artifact.path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32)
            kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
            tensor.CopyFrom(numpy_helper.from_array(kept.view(np.float32), tensor.name))
    content: bytes = model.SerializeToString()
    return content


ROUNDED = Scheme(
    name="rounded",
    weights=16,
    activations="float",
    formats={"onnx": "glyphpress_example.rounded:rounded"},
    summary="float32 weights of 16 significant bits, which pack to half the size",
    scaled=False,
    stays_float=True,
)
ROUNDED_ONNX = Recipe(
    name="rounded-onnx",
    summary="float weights that pack to half the size, for updates over a slow line.",
    formats=("onnx",),
    steps=(Quantize(scheme="rounded"),),
)
