"""Parse the value of `--model`, `file.py:Class(args)` or `package.module:Class(args)`, and build the model."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.users_modules import users_modules
from toolchain.core.errors import CheckpointError, UsageProblem

if TYPE_CHECKING:
    from torch import nn

_OUTPUTS = re.compile(r"(^|_)(n|num)?_?(class|label|out)", re.IGNORECASE)
_USERS = "glyphpress_user_"
"""Begins the names of modules that are files of the user, and of their folders."""
_EXAMPLE = "such as net.py:Net, net.py:Net(num_classes=47) or mypackage.net:Net"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's class is, and the arguments to build it with: literals, so that no code in them runs."""

    location: str
    attribute: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """Return whether `location` is a Python file rather than an importable module."""
        return self.location.endswith(".py")


def parse_source(text: str) -> ModelSource:
    """Parse the value of `--model`. Raises UsageProblem, with the expected form, when it cannot."""
    match = re.fullmatch(r"(?P<location>[^()]+):(?P<name>[A-Za-z_]\w*)(?P<call>\(.*\))?", text.strip(), re.DOTALL)
    if not match:
        raise UsageProblem(f"--model '{text}' names no class; write FILE.py:CLASS or MODULE:CLASS, {_EXAMPLE}")
    args, kwargs = _literals(match["call"] or "()", text)
    return ModelSource(match["location"], match["name"], args, kwargs)


def _literals(call: str, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        tree = ast.parse("f" + call, mode="eval").body
        if not isinstance(tree, ast.Call) or any(keyword.arg is None for keyword in tree.keywords):
            raise ValueError
        args = tuple(ast.literal_eval(value) for value in tree.args)
        return args, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (ValueError, SyntaxError, TypeError) as error:
        raise UsageProblem(f"--model '{text}': the arguments must be literals, {_EXAMPLE}") from error


def import_source(source: ModelSource) -> ModuleType:
    """Import the user's module, which runs its code. Raises CheckpointError on any exception in it."""
    try:
        if source.is_file:
            return _import_file(Path(source.location))
        with users_modules():
            return importlib.import_module(source.location)
    except Exception as error:  # a user's module can raise anything while it is imported
        advice = _path_advice(source) or _package_advice(error) or "correct it, or name another file"
        raise CheckpointError(
            f"--model: {source.location} cannot be imported ({first_line(error)}); {advice}"
        ) from error


def _path_advice(source: ModelSource) -> str:
    """Return advice to give a file's path, where `--model` names a module but such a file exists; otherwise ""."""
    paths = [Path(f"{name}.py") for name in (source.location, source.location.replace(".", "/"))]
    path = None if source.is_file else next((path for path in paths if path.is_file()), None)
    return f"for the file {path} write --model {path}:{source.attribute}" if path else ""


def _package_advice(error: Exception) -> str:
    """Return advice to install what a user's module imports, where that is missing; otherwise ""."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not package or package.startswith(_USERS):
        return ""
    return f"install the package that has {package}, such as pip install {package}, or take the import out"


def factory_of(source: ModelSource) -> Callable[..., Any]:
    """Import the class (or function). Raises CheckpointError when there is none, and as `import_source`."""
    return _attribute(import_source(source), source)


def build_from(source: ModelSource, factory: Callable[..., Any] | None = None, outputs: int | None = None) -> nn.Module:
    """Import the class (or function) unless it is given, and call it.

    outputs: of the model, where the weights show it. Raises CheckpointError with the signature, and the line to type,
    when the call fails.
    """
    from torch import nn

    factory = factory or factory_of(source)
    try:
        model = factory(*source.args, **source.kwargs)
    except Exception as error:  # a user's constructor can raise anything
        signature, arguments = _signature(factory, outputs)
        raise CheckpointError(
            f"--model: {source.attribute}{signature} cannot be built ({first_line(error)}); "
            f'give its arguments, such as --model "{source.location}:{source.attribute}({arguments})"'
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"--model: {source.location}:{source.attribute} gives a {type(model).__name__}, not an nn.Module; "
            "name the class"
        )
    return model


def _attribute(module: ModuleType, source: ModelSource) -> Callable[..., Any]:
    attribute = getattr(module, source.attribute, None)
    if callable(attribute):
        return attribute  # type: ignore[no-any-return]  # attributes of a user's module are untyped
    values = vars(module).items()
    callables = [name for name, value in values if callable(value) and not name.startswith("_")]
    classes = [name for name, value in values if inspect.isclass(value) and value.__module__ == module.__name__]
    names = difflib.get_close_matches(source.attribute, callables, n=3) or classes[:3] or ["nothing callable"]
    advice_clause = f"; {advice}" if (advice := _path_advice(source)) else ""
    raise CheckpointError(
        f"--model: {source.location} has no '{source.attribute}'; it has {', '.join(names)}{advice_clause}"
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    folder = path.resolve().parent
    # A package of the folder's files without its own code, so that `from .layers import Block` is found too.
    package = ModuleType(_USERS + re.sub(r"\W", "_", str(folder)))
    package.__path__ = [str(folder)]
    name = f"{package.__name__}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules |= {package.__name__: package, name: module}
    try:
        # The user's file may import other files of its folder, as it can when Python runs it from there.
        with users_modules(folder):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name], sys.modules[package.__name__]
        raise
    return module


def _signature(factory: Callable[..., Any], outputs: int | None) -> tuple[str, str]:
    """Return a callable's signature, and the arguments that it requires (`width=...`): all where none is.

    The one that seems to be the number of outputs gets that number.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return "(...)", "..."
    parameters = list(signature.parameters.values())
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    columns = [parameter.name for parameter in required if _OUTPUTS.search(parameter.name)]
    known = {columns[0]: outputs} if outputs and len(columns) == 1 else {}
    names = [parameter.name for parameter in required or parameters]
    return str(signature), ", ".join(f"{name}={known.get(name, '...')}" for name in names) or "..."


def model_option(module: nn.Module, arguments: dict[str, Any]) -> str:
    """Return a `--model` option that builds a module of the same class."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "..."
    return f'--model "FILE.py:{type(module).__name__}({text})"'


def size_argument(module: nn.Module, size: int, *, outputs: bool) -> str:
    """Return the argument of the module's class that probably set this size, or an empty string.

    outputs: the size is the number of the model's outputs.
    """
    parameters = list(inspect.signature(type(module)).parameters.values())
    named = [parameter.name for parameter in parameters if outputs and _OUTPUTS.search(parameter.name)]
    same_default = [
        parameter.name for parameter in parameters if parameter.default == size and parameter.default is not True
    ]
    return (named or same_default or [""])[0]
