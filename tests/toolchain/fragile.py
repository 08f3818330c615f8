"""A model that reads well and cannot be quantized whole: one of its layers has weights that eight bits do not hold."""

from __future__ import annotations

import copy

from tests.lazily import torch
from toolchain.checkpoint.float_model import FloatModel

FRAGILE = "features.conv4"


def fragile(model: FloatModel, *convolutions: int) -> FloatModel:
    """Return a `cnn-small` in which a channel that is always 0 has weights of 100 in every channel of conv4.

    conv3 gives nothing in its first channel, so those weights change no answer; but in every output channel of conv4
    they are the largest, and the steps that they need round all others to 0. convolutions: others than the fourth.
    """
    module = copy.deepcopy(model.torch_module("breaking"))
    with torch.no_grad():
        for number in convolutions or (4,):
            norm = module.features.get_submodule(f"norm{number - 1}")
            norm.weight[0], norm.bias[0] = 0, -1
            module.features.get_submodule(f"conv{number}").weight[:, 0] = 100
    return model.with_module(module)
