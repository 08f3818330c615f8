"""The trial run: two blank images through a module, to see that it takes glyphs and which output holds the logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.state import listing
from toolchain.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Widths of EMNIST's splits: a wrong one often is another split's.
_SPLITS = {
    10: "digits or mnist",
    26: "letters",
    27: "letters with labels from 1",
    47: "balanced or bymerge",
    62: "byclass",
}


def widths(classes: int, label_offset: int | None) -> tuple[int, ...]:
    """Return the output widths that can be meant, the likeliest first.

    One column more than the classes is the blank first (or last) one of models that keep EMNIST's labels from 1.
    `label_offset` None: it must still be found.
    """
    return (classes + label_offset,) if label_offset else (classes, classes + 1)


def wrong_width(width: int, classes: int, label_offset: int | None) -> str:
    """Return the sentence about an output of another width."""
    guess = f"; {width} is the width of {_SPLITS[width]}" if width in _SPLITS else ""
    shift = f" from label offset {label_offset} on" if label_offset else ""
    return (
        f"it answers {width} columns, but there are {classes} classes{shift}{guess}; give the --data it was trained "
        "on, or choose its classes with --classes"
    )


def settle_output(
    module: nn.Module, name: str, *, classes: int, label_offset: int | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module, wrapped so that it answers logits [N, width] alone, and notes of what was chosen.

    Raises CheckpointError when it does not take float32 [2, 1, 28, 28], when no output has a width that can be
    meant, when several have, or when the answer is not finite.
    """
    import torch

    outputs = named_tensors(_answer(module, name))
    chosen = choose({key: tuple(value.shape) for key, value in outputs.items()}, name, classes, label_offset, batch=2)
    logits = outputs[chosen]
    if not torch.isfinite(logits).all():
        raise CheckpointError(f"{name}: NaN or infinity for blank images; the weights are broken, train or save again")
    notes = []
    if len(outputs) > 1 or chosen:
        notes.append(f"output {chosen} [N, {logits.shape[1]}] of {len(outputs)} taken as the logits")
        module = _chosen_output(module, chosen)
    if torch.allclose(logits.sum(1), torch.ones(2), atol=1e-4) and (logits >= 0).all():
        notes.append("the answers sum to 1: the model ends in a softmax, kept as it is")
    return module, tuple(notes)


def choose(
    shapes: Mapping[str, tuple[int, ...]], name: str, classes: int, label_offset: int | None, *, batch: int
) -> str:
    """Return the one output that can hold the logits. Raises CheckpointError when there is none, or several."""
    for width in widths(classes, label_offset):
        fitting = [key for key, shape in shapes.items() if shape == (batch, width)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise CheckpointError(
                f"{name}: outputs {listing(fitting)} all have width {width}; return the logits alone, or once"
            )
    if len(shapes) == 1:
        (shape,) = shapes.values()
        if len(shape) == 2 and shape[0] == batch:
            raise CheckpointError(f"{name}: {wrong_width(shape[1], classes, label_offset)}")
    shown = listing(f"{key or 'output'} {list(shape)}" for key, shape in shapes.items()) or "nothing"
    raise CheckpointError(
        f"{name}: for {batch} images it answers {shown}, none of them [{batch}, {classes}]; return logits [N, classes]"
    )


def named_tensors(answer: Any) -> dict[str, Tensor]:
    """Return the tensors of an answer by where they stand in it; a bare tensor stands at ''."""
    from torch import Tensor

    if isinstance(answer, Tensor):
        return {"": answer}
    items: Any = ()
    if isinstance(answer, Mapping):
        items = answer.items()
    elif isinstance(answer, (tuple, list)):
        items = enumerate(answer)
    return {str(key): value for key, value in items if isinstance(value, Tensor)}


def _answer(module: nn.Module, name: str) -> Any:
    import torch

    try:
        with torch.no_grad():
            return module(torch.zeros(2, 1, 28, 28))
    except Exception as error:  # a user's forward can raise anything
        raise CheckpointError(
            f"{name} does not take float32 [N, 1, 28, 28] with N = 2 ({first_line(error)}); "
            f"give a model for 28x28 images of one channel, with a batch axis that is not fixed"
        ) from error


def _chosen_output(module: nn.Module, key: str) -> nn.Module:
    from torch import nn

    class ChosenOutput(nn.Module):
        """One of several outputs."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return named_tensors(self.model(image))[key]

    return ChosenOutput(module).eval()
