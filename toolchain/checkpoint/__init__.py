"""A user's trained model, in whatever form it was saved, as a FloatModel."""

from toolchain.checkpoint.float_model import forward
from toolchain.checkpoint.load import CheckpointRequest, Loaded, Settled, load, settle
from toolchain.checkpoint.onnx_normal import normalised

__all__ = ["CheckpointRequest", "Loaded", "Settled", "forward", "load", "normalised", "settle"]
