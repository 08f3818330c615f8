"""Reference architectures, one per file, and the table that finds them by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glyphpress.registry import Registry, resolved
from targets.errors import nearest
from toolchain.core.errors import GlyphpressError, UsageProblem

if TYPE_CHECKING:
    from torch import nn

    from toolchain.models.estimator import Estimator

MODELS = {
    "cnn-small": "toolchain.models.cnn_small:CnnSmall",
    "cnn-deep": "toolchain.models.cnn_deep:CnnDeep",
    "mlp-100x3": "toolchain.models.mlp_100x3:Mlp100x3",
    "lenet5": "toolchain.models.lenet5:LeNet5",
    "cnn-keras": "toolchain.models.cnn_keras:CnnKeras",
    "resnet18": "toolchain.models.resnet18:ResNet18",
    "densenet": "toolchain.models.densenet:DenseNet",
    "cnn-attention": "toolchain.models.cnn_attention:CnnAttention",
    "dscnn": "toolchain.models.dscnn:DsCnn",
}
"""Class of each model by its name; imported only when the model is built, since every architecture needs torch."""
ESTIMATORS = {
    "svc": "toolchain.models.svc:Svc",
    "decision-tree": "toolchain.models.decision_tree:DecisionTree",
    "random-forest": "toolchain.models.random_forest:RandomForest",
}
"""Settings (`Estimator`) of each scikit-learn classifier by its name. They become .onnx files, not torch modules."""


def _architecture(_name: str, value: Any) -> Callable[..., nn.Module]:
    if not callable(value):
        raise TypeError(f"it gives {value!r:.60}, and what builds a torch module is needed")
    architecture: Callable[..., nn.Module] = value
    return architecture


REGISTRY = Registry("model", lambda: MODELS, _architecture, lambda: ESTIMATORS)
"""Those of MODELS and of plug-ins: what takes `classes`, and options, and returns the module."""
_REFERENCE = "_glyphpress_reference"
MOST_PARAMETERS = 200_000_000
"""Limit of a reference model; options that ask for more are an error in a file or a command."""


def names() -> tuple[str, ...]:
    """Return the name of every reference architecture."""
    return tuple(REGISTRY)


def scaled(count: int, width: float) -> int:
    """Return `count` channels times `width` as a multiple of 8, the vector width of int8 kernels, and at least 8."""
    return max(8, 8 * round(count * width / 8))


def estimator_class(name: str) -> type[Estimator]:
    """Return the settings of a scikit-learn classifier. Raises UsageProblem on a name that is not in ESTIMATORS."""
    if name not in ESTIMATORS:
        raise UsageProblem(
            f"no scikit-learn model '{name}'; {nearest(name, ESTIMATORS, 'give ' + ' or '.join(ESTIMATORS))}"
        )
    settings: type[Estimator] = resolved(ESTIMATORS[name])
    return settings


def build(name: str, classes: int, **options: Any) -> nn.Module:
    """Return a new reference model with random weights, float32 [N, 1, 28, 28] to logits [N, classes].

    The weights come from torch's global generator. Raises UsageProblem on a name that is not in `names()`, on fewer
    than two classes and on options that the architecture does not take, that leave a layer without weights or that
    ask for more than MOST_PARAMETERS.
    """
    import torch

    refuse_unbuilt(name)
    if classes < 2:
        raise UsageProblem(f"{name} needs at least two classes, not {classes}")
    architecture = REGISTRY.get(name)
    # The options may come from an untrusted file, so the model is first built without memory, on the meta device.
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes = {
                name: weight.numel() for name, weight in architecture(classes=classes, **options).named_parameters()
            }
        if empty := [name for name, size in sizes.items() if not size]:
            raise ValueError(f"{empty[0]} would have no weights")
        if (total := sum(sizes.values())) > MOST_PARAMETERS:
            raise ValueError(f"{total:,} parameters are more than {MOST_PARAMETERS:,}")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageProblem(f"{name} cannot be built with {options}: {str(error).splitlines()[0]}") from error
    model: nn.Module = architecture(classes=classes, **options)
    # Not a registered parameter or layer, so neither weights nor programs hold it; a copy of the model keeps it.
    vars(model)[_REFERENCE] = (name, options)
    return model


def reference_of(module: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the options with which `build` made a module, None for any other module."""
    reference: tuple[str, dict[str, Any]] | None = vars(module).get(_REFERENCE)
    return reference


def is_ours(module: nn.Module) -> bool:
    """Return whether a module is one of the reference architectures."""
    return f"{type(module).__module__}:{type(module).__name__}" in MODELS.values()


@contextmanager
def called_by_name(name: str, path: Path) -> Iterator[None]:
    """Let the errors of the block call a model that ships by its name, not by its file in the package."""
    try:
        yield
    except GlyphpressError as error:
        if name in MODELS:
            error.args = (str(error).replace(str(path), name),)
        raise


def shipped_weights(name: str) -> Path | None:
    """Return the trained weights that come with the package (`.safetensors`), or None when there are none.

    Raises UsageProblem on a name that is not in `names()`.
    """
    refuse_unbuilt(name)
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    return path if path.is_file() else None


def shipped_names() -> tuple[str, ...]:
    """Return the name of every reference model that comes with trained weights."""
    return tuple(name for name in MODELS if shipped_weights(name))


def refuse_unknown(name: str) -> None:
    """Raise UsageProblem where no reference model has this name."""
    if name in ESTIMATORS:
        return
    try:
        REGISTRY.require(name)
    except KeyError:
        near = nearest(name, (*REGISTRY, *ESTIMATORS), "see `glyphpress train --help`")
        raise UsageProblem(f"no reference model '{name}'; {near}") from None


def refuse_unbuilt(name: str) -> None:
    """Raise UsageProblem where no reference model has this name, or it is none of torch."""
    if name in ESTIMATORS:
        names_text = ", ".join(REGISTRY)
        raise UsageProblem(f"{name} is fitted by scikit-learn and has no torch module; give one of {names_text}")
    refuse_unknown(name)
