"""What a training depends on, and the tensors of a module, for the file from which a killed run continues."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any

from calibration.dataset import Dataset
from targets.preprocess import Preprocess
from toolchain.core.json_codec import to_json
from toolchain.training.device import device_name, device_of
from toolchain.training.loss import Lesson
from toolchain.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolchain.training.transfer import Frozen

_ASKED = 64
"""Images whose answers identify a teacher."""


def inputs_of(
    student: nn.Module,
    data: Dataset,
    preprocess: Preprocess,
    settings: TrainSettings,
    *,
    lesson: Lesson | None,
    frozen: Frozen | None,
    seed: int,
) -> dict[str, str]:
    """Return all that the result of a training depends on, by name: values as texts, and digests of the rest.

    student: with its first weights. torch's number of threads is that of the training.
    """
    import torch

    taught = {"teacher": _digest(lesson.answers(data.images[:_ASKED]).tobytes())} if lesson else {}
    taught |= {"temperature": f"{lesson.temperature:g}", "soft": f"{lesson.soft:g}"} if lesson else {}
    weights = (f"{name} {tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors_of(student).items())
    return {
        "model": type(student).__name__,
        "layers": _digest(str(student).encode(), *(text.encode() for text in weights)),
        "images": f"{data.origin} {_digest(data.sha256.encode(), *(name.encode() for name in data.classes))}",
        **{name: str(value) for name, value in to_json(settings).items()},
        "preprocess": str(preprocess),
        "computed on": device_name(device_of(student)),
        "seed": str(seed),
        "threads": str(torch.get_num_threads()),
        **taught,
        "frozen layers": str(frozen),
        "first weights": _digest(
            *(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors_of(student).values())
        ),
        "torch": str(torch.__version__),
    }


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()[:12]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and all buffers of a module by name, those included that its state_dict leaves out."""
    return {name: tensor.detach() for name, tensor in chain(module.named_parameters(), module.named_buffers())}


def put_tensors(module: nn.Module, values: dict[str, Any]) -> None:
    """Copy what `tensors_of` gave into a module of the same shapes."""
    for name, tensor in tensors_of(module).items():
        tensor.copy_(values[name])
