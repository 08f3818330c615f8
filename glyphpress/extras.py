"""Which extra of glyphpress brings a package that the core does without, and the command that installs it.

The core judges, evaluates, compares, profiles and reports; training, pressing, TFLite and some targets need more.
"""

from __future__ import annotations

EXTRAS = {
    "torch": "press",
    "torch_pruning": "press",
    "onnxscript": "press",
    "safetensors": "press",
    "litert_torch": "press",
    "litert_quantizer": "press",
    "ai_edge_litert": "litert",
    "flatbuffers": "litert",
    "skl2onnx": "sklearn",
    "pyarrow": "parquet",
    "openvino": "openvino",
    "onnxruntime_ep_webgpu": "webgpu",
    "playwright": "browser",
    "tensorrt": "tensorrt",
}
"""Module -> the extra in pyproject.toml that names its package."""


def pip_line(module: str) -> str:
    """Return the command that installs what has a module: an extra of ours, or a package of the core of that name."""
    extra = EXTRAS.get(module.partition(".")[0])
    return f"pip install 'glyphpress[{extra}]'" if extra else f"pip install {module.partition('.')[0]}"
