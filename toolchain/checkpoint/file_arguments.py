"""Arguments of a model's class that a checkpoint holds beside the weights, in its configuration or among its facts."""

from __future__ import annotations

import inspect
import typing
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.source import ModelSource, build_from, factory_of
from toolchain.checkpoint.state import Fitted, fit_state
from toolchain.core.errors import CheckpointError
from toolchain.models import MOST_PARAMETERS

if TYPE_CHECKING:
    from torch import Tensor, nn

_MODEL_CONFIGS = (
    *("model_args", "model_kwargs", "model_config", "kwargs", "init_args"),
    *("model", "network", "net", "arch"),
)
"""Names of configurations that hold nothing but arguments of the model."""
_CONFIGS = (
    *("config", "cfg", "conf", "configuration", "hparams", "hyper_parameters", "hyperparameters", "hyperparams"),
    *("args", "opt", "options", "settings", "params", *_MODEL_CONFIGS),
)
_DEEPEST = 3
_PLAIN = (str, int, float, bool, type(None))


class _Config(dict[str, Any]):
    """A configuration whose values are found as `config["width"]` and as `config.width`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        inner = {key: _Config(value) for key, value in values.items() if isinstance(value, Mapping)}
        super().__init__({**values, **inner})
        self.__dict__ = self


@dataclass(frozen=True)
class FileArguments:
    """Keyword arguments of a class, and the key of the file where most of them stand, empty for its top."""

    values: dict[str, Any]
    key: str

    def __str__(self) -> str:
        """Return them as they are written in a call, and where they stand."""
        shown = ", ".join(
            name if isinstance(value, Mapping) or is_dataclass(value) else f"{name}={value!r}"
            for name, value in self.values.items()
        )
        return f"{shown} from " + (f"'{self.key}' in the file" if self.key else "the top of the file")


def build_and_fit(
    source: ModelSource,
    facts: Mapping[Any, Any],
    tensors: Mapping[str, Tensor],
    name: str,
    weights: str | None,
    *,
    assign: bool = False,
) -> tuple[nn.Module, Fitted]:
    """Build the class of `--model` and load its weights, as `fit_state` does.

    Arguments that `--model` does not give are taken from what the file holds beside the weights, where the class can be
    built with them and the weights then fit; a note says which. Raises as `build_from` and `fit_state` do.
    """
    factory = factory_of(source)
    found = arguments_in(factory, source, facts)
    outputs = next((tensor.shape[0] for tensor in reversed([*tensors.values()]) if tensor.ndim > 1), None)
    refusal: CheckpointError | None = None
    if found.values:
        _refuse_sizes(found, sum(tensor.numel() for tensor in tensors.values()), name)
        try:
            module = _built(factory, replace(source, kwargs=source.kwargs | found.values), name)
            fitted = fit_state(module, tensors, name, weights, assign=assign)
        except CheckpointError as error:
            refusal = CheckpointError(f"{error} (with {found})")
        else:
            return module, replace(fitted, notes=(*fitted.notes, f"arguments of {source.attribute}: {found}"))
    try:
        module = build_from(source, factory, outputs)
        fitted = fit_state(module, tensors, name, weights, assign=assign)
    except CheckpointError as error:
        raise refusal or error from error
    note = (f"the weights do not fit {source.attribute} with {found}, which are not taken",) * bool(refusal)
    return module, replace(fitted, notes=(*fitted.notes, *note))


def arguments_in(factory: Callable[..., Any], source: ModelSource, facts: Mapping[Any, Any]) -> FileArguments:
    """Return the arguments of a class that stand in the facts beside the weights and differ from its defaults.

    They are looked for under the usual names of configurations, in those nested in them, and at the top of the file. A
    class that takes the configuration itself gets it whole.
    """
    try:
        signature = inspect.signature(factory)
        given = signature.bind_partial(*source.args, **source.kwargs).arguments
    except (TypeError, ValueError):
        return FileArguments({}, "")
    free = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    rest = next((p.name for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD), None)
    configs = list(_configs(facts))
    taken = [(key, _taken(config, free, rest, key, given)) for key, config in configs]
    taken.sort(key=lambda entry: -len(entry[1]))
    top = {name: value for name, value in _plain(facts).items() if name in free and not isinstance(value, dict)}
    taken.append(("", top))
    values: dict[str, Any] = {}
    for _, arguments in taken:
        values |= {name: value for name, value in arguments.items() if name not in values}
    key = next((key for key, arguments in taken if arguments), "")
    for name, parameter in free.items():
        if name in _CONFIGS and name not in values and parameter.default in (None, parameter.empty) and configs:
            key, config = next((entry for entry in configs if entry[0] == name), configs[0])
            values[name] = _whole(factory, name, config)
    changed = {name: value for name, value in values.items() if name not in free or _differs(value, free[name].default)}
    return FileArguments(changed, key)


def _configs(facts: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every configuration by its dotted key: those with a usual name, and all mappings in them."""
    for key, value in facts.items():
        inner = vars(value) if isinstance(value, Namespace) else value
        if isinstance(inner, Mapping) and depth < _DEEPEST and (depth or str(key).lower() in _CONFIGS):
            if config := _plain(inner):
                yield f"{prefix}{key}", config
            yield from _configs(inner, f"{prefix}{key}.", depth + 1)


def _plain(facts: Mapping[Any, Any]) -> dict[str, Any]:
    """Return those facts that are numbers, text, or lists and mappings of these."""
    return {key: value for key, value in facts.items() if isinstance(key, str) and _is_plain(value)}


def _is_plain(value: object, depth: int = 0) -> bool:
    if isinstance(value, (list, tuple, dict)) and depth < _DEEPEST:
        return all(_is_plain(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, _PLAIN)


def _taken(
    config: Mapping[str, Any],
    free: Mapping[str, inspect.Parameter],
    rest: str | None,
    key: str,
    given: Collection[str],
) -> dict[str, Any]:
    """Return the arguments in one configuration.

    free: the class's arguments without those that are `given`. rest: the name of its `**` argument, None without one.
    """
    everything = rest is not None and key.rpartition(".")[2] in (*_MODEL_CONFIGS, rest)
    return {name: value for name, value in config.items() if name not in given and (everything or name in free)}


def _whole(factory: Callable[..., Any], name: str, config: Mapping[str, Any]) -> Any:
    """Return a configuration as the class wants it: as its own dataclass where it says so."""
    called = factory.__init__ if inspect.isclass(factory) else factory
    try:
        kind = typing.get_type_hints(called).get(name)
        if inspect.isclass(kind) and is_dataclass(kind):
            names = {field.name for field in fields(kind) if field.init}
            return kind(**{key: value for key, value in config.items() if key in names})
    except (TypeError, NameError, AttributeError, ValueError):
        pass  # what the class wants cannot be told; it gets the mapping
    return _Config(config)


def _differs(value: Any, default: Any) -> bool:
    """Return whether a value is another than a parameter's default; a list of names is no number of classes."""
    if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
        return False
    value = tuple(value) if isinstance(value, list) else value
    default = tuple(default) if isinstance(default, list) else default
    return type(value) is not type(default) or bool(value != default)


def _refuse_sizes(found: FileArguments, numbers: int, name: str) -> None:
    """Raise CheckpointError where a size in the file is larger than all its weights: it is damaged, or a trap."""
    for argument, value in found.values.items():
        if isinstance(value, int) and abs(value) > max(numbers, 1 << 20):
            raise CheckpointError(
                f"{name}: {argument}={value} from '{found.key}' is larger than its {numbers:,} weights; save it again"
            )


def _built(factory: Callable[..., Any], source: ModelSource, name: str) -> nn.Module:
    """Build a class with arguments of a file, first without memory, since a damaged file may ask for any size."""
    import torch

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            size = sum(weight.numel() for weight in factory(*source.args, **source.kwargs).parameters())
    except Exception:  # noqa: BLE001 (a class may need real numbers to be built; the sizes were looked at)
        size = 0
    if size > MOST_PARAMETERS:
        raise CheckpointError(f"{name} asks for {size:,} parameters, more than {MOST_PARAMETERS:,}")
    return build_from(source, factory)
