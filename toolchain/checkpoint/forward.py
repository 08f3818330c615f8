"""Run a FloatModel, whether it is in torch or only in ONNX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from targets.errors import first_line
from toolchain.checkpoint.float_model import FloatModel
from toolchain.core.errors import StageError

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def forward(model: FloatModel) -> Forward:
    """Return a function from float32 [N, 1, 28, 28], already preprocessed, to all logit columns float32 [N, width].

    What it returns raises StageError where the model does not take that many.
    """
    return _torch_forward(model) if model.module is not None else _onnx_forward(model)


def _torch_forward(model: FloatModel) -> Forward:
    import torch

    module = model.module
    assert module is not None, "the caller has looked"

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with torch.no_grad():
                logits: NDArray[np.float32] = module(torch.from_numpy(images)).float().numpy()
        except Exception as error:
            # A stranger's forward may raise anything.
            raise StageError(
                f"{model.name} does not take {len(images)} images at once ({first_line(error)}); "
                "give a model whose batch is free"
            ) from error
        return logits

    return run


def _onnx_forward(model: FloatModel) -> Forward:
    from toolchain.checkpoint.onnx_normal import normalised
    from toolchain.checkpoint.onnx_run import answers, open_session

    assert model.onnx is not None, "a FloatModel without a module came from ONNX"
    session = open_session(normalised(model.onnx, len(model.classes), model.preprocess.label_offset or None))

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = answers(session, images)["logits"]
        return logits

    return run
