"""Transfer learning: start a training from the weights of a checkpoint, with a head for the new classes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from calibration.dataset import Dataset
from targets.errors import first_line, nearest
from targets.preprocess import Preprocess
from toolchain import models
from toolchain.checkpoint.float_model import FloatModel
from toolchain.checkpoint.inspection import run_order
from toolchain.checkpoint.kinds import kind_name, kind_of
from toolchain.checkpoint.load import CheckpointRequest, settle
from toolchain.core.errors import CheckpointError, ClassesUnknown, UsageProblem
from toolchain.core.json_codec import to_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    Head = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Freeze:
    """Which weights a training leaves as they are, and for how long.

    until: name of the last frozen layer, in the order in which the layers run; None freezes all but the head.
    epochs: number of epochs for which they are frozen; None for the whole training.
    """

    until: str | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageProblem for an impossible number of epochs."""
        if self.epochs is not None and self.epochs < 1:
            raise UsageProblem(f"freezing for {self.epochs} epochs is not possible; give 1 or more, or do not freeze")


@dataclass(frozen=True)
class Frozen:
    """Layers of a module that are frozen: their names, and the number of epochs (None: all of them)."""

    layers: tuple[str, ...]
    epochs: int | None = None

    def hold(self, module: nn.Module, epoch: int) -> None:
        """Prepare a module in training mode for an epoch, counted from 1.

        The weights of the layers get no gradient, and their batch norms keep their statistics, as in evaluation.
        """
        from torch.nn.modules.batchnorm import _BatchNorm

        is_frozen = self.epochs is None or epoch <= self.epochs
        for name in self.layers:
            layer = module.get_submodule(name)
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(not is_frozen)
            if is_frozen and isinstance(layer, _BatchNorm):
                layer.eval()


@dataclass(frozen=True)
class Start:
    """A module that starts from the weights of a checkpoint.

    module: float32 [N, 1, 28, 28] to logits [N, label_offset + classes]. preprocess: how the checkpoint wants its
    images. frozen: None where all of it is trained. facts: the checkpoint and its head, as JSON types. notes: lines for
    the user.
    """

    module: nn.Module
    preprocess: Preprocess
    frozen: Frozen | None
    facts: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the reference architecture, or of the class that is none of ours."""
        return (models.reference_of(self.module) or (type(self.module).__name__,))[0]


def start_from(
    checkpoint: str,
    data: Dataset,
    *,
    request: CheckpointRequest | None = None,
    freeze: Freeze | None = None,
    seed: int = 0,
) -> Start:
    """Load a checkpoint and give it a head for the classes of `data`.

    request: the architecture, and the classes and preprocess of the checkpoint where its file does not store them. A
    file without classes is taken to read the classes of `data`. A head for the same classes in the same order stays as
    it is. Otherwise it is a new one; columns of classes that the checkpoint reads too start from its weights, since
    they already tell these classes apart, and the others from random weights drawn with `seed`.

    Raises CheckpointError when the file is no such checkpoint or its head cannot be told from its other layers,
    UsageProblem for a layer to freeze that the model does not have, or when nothing would be trained.
    """
    model = _load(checkpoint, data, request or CheckpointRequest())
    module = copy.deepcopy(model.torch_module("train --from"))
    order = _layers_in_order(module)
    name = _head_name(module, order, checkpoint)
    notes: tuple[str, ...] = ()
    copied = len(data.classes)
    if model.classes != data.classes:
        copied = _replace_head(module, name, model, data.classes, seed)
        notes = (_head_note(name, model.classes, data.classes, copied),)
    frozen = _frozen(module, order, name, freeze) if freeze else None
    facts = {
        "file": checkpoint,
        "sha256": model.checkpoint_sha256,
        "classes": list(model.classes),
        "history": list(model.history),
        "head": {"layer": name, "new": bool(notes), "columns": len(data.classes), "copied": copied},
        "freeze": to_json(freeze),
    }
    return Start(module, model.preprocess, frozen, facts, notes)


def _load(checkpoint: str, data: Dataset, request: CheckpointRequest) -> FloatModel:
    """Load the checkpoint with its own classes, or with those of the data where it names none."""
    if (path := Path(checkpoint)).is_file() and (kind := kind_of(path)) not in ("state", "safetensors"):
        raise CheckpointError(
            f"{checkpoint} ({kind_name(kind)}) holds no class whose weights train --from could save again; give the "
            "checkpoint (.pt or .safetensors) it was made from"
        )
    try:
        # Images of other classes cannot tell how the checkpoint wants them.
        return settle(checkpoint, replace(request, search=False), None).model
    except ClassesUnknown:
        return settle(checkpoint, request, data).model


def _layers_in_order(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that have no layers inside, by name, in the order in which they first run."""
    import torch

    names = {layer: name for name, layer in module.named_modules() if not any(layer.children())}
    return {names[layer]: layer for layer in run_order(module.eval(), names, torch.zeros(2, 1, 28, 28))}


def _head_name(module: nn.Module, order: dict[str, nn.Module], checkpoint: str) -> str:
    """Return the name of the layer that gives the logits: a linear one, or a 1x1 convolution, after which none runs."""
    import torch
    from torch import nn

    outputs: list[Tensor] = []
    weighted = [name for name, layer in order.items() if any(True for _ in layer.parameters(recurse=False))]
    name = weighted[-1] if weighted else ""
    layer = order.get(name)
    if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
        hook = layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output))
        with torch.no_grad():
            logits = module(torch.zeros(2, 1, 28, 28))
        hook.remove()
        if len(outputs) == 1 and outputs[0].shape[1] == logits.shape[1]:
            return name
    raise CheckpointError(
        f"{checkpoint}: its head cannot be found, since its last layer with weights ({name or 'none'}) does not give "
        f"the {len(module(torch.zeros(2, 1, 28, 28))[0])} logits; give a model that ends in a linear layer"
    )


def _replace_head(module: nn.Module, name: str, model: FloatModel, classes: tuple[str, ...], seed: int) -> int:
    """Give the module a head for `classes`, and return how many of its columns start from those of the old one."""
    import torch

    old = cast("Head", module.get_submodule(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _head_like(old, model.preprocess.label_offset + len(classes))
    common = [(classes.index(each), model.classes.index(each)) for each in classes if each in model.classes]
    if common:
        rows = torch.tensor(common) + model.preprocess.label_offset
        with torch.no_grad():
            head.weight[rows[:, 0]] = old.weight[rows[:, 1]]
            if head.bias is not None and old.bias is not None:
                head.bias[rows[:, 0]] = old.bias[rows[:, 1]]
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, head)
    try:
        with torch.no_grad():
            width = module.eval()(torch.zeros(2, 1, 28, 28)).shape[1]
    except Exception as error:  # a user's forward can raise anything
        raise _fixed_width(model, name, first_line(error)) from error
    if width != model.preprocess.label_offset + len(classes):
        raise _fixed_width(model, name, f"it still answers {width} columns")
    return len(common)


def _fixed_width(model: FloatModel, name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{model.name}: its head {name} cannot be replaced ({reason}); give a model whose other steps take any number "
        "of classes"
    )


def _head_like(old: Head, width: int) -> Head:
    from torch import nn

    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, width, bias=old.bias is not None)
    return nn.Conv2d(
        old.in_channels,
        width,
        cast("tuple[int, int]", old.kernel_size),
        cast("tuple[int, int]", old.stride),
        cast("tuple[int, int]", old.padding),
        bias=old.bias is not None,
    )


def _head_note(name: str, before: tuple[str, ...], after: tuple[str, ...], copied: int) -> str:
    origin = f"{copied} start from those of the same name" if copied else "no name is the same, so it starts at random"
    return f"new head {name}: {len(after)} classes for the checkpoint's {len(before)}; {origin}"


def _frozen(module: nn.Module, order: dict[str, nn.Module], head: str, freeze: Freeze) -> Frozen:
    if freeze.until is None:
        # All modules and not only the layers that run, since a module may hold weights beside its layers.
        return Frozen(tuple(name for name, _ in module.named_modules() if name != head), freeze.epochs)
    names = list(order)
    if freeze.until not in order:
        advice = nearest(freeze.until, names, f"the layers are {', '.join(names)}")
        raise UsageProblem(f"no layer '{freeze.until}' to freeze; {advice}")
    layers = tuple(names[: names.index(freeze.until) + 1])
    if head in layers:
        raise UsageProblem(f"freezing until {freeze.until} leaves no weights to train; name a layer before {head}")
    return Frozen(layers, freeze.epochs)
