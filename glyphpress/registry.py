"""Names of one kind and what they stand for: those of glyphpress, and those that plug-ins of other packages add.

A package adds a name by an entry point in the group of the kind, such as `errors = "package.module:ERRORS"` in
`glyphpress.limits`. Which packages do so is read from what is installed, without importing them. The code of a plug-in
is imported when its name is used, or when everything of its kind is described. A built-in name is never looked up among
plug-ins, so that none can take its place. GLYPHPRESS_NO_PLUGINS=1 turns all plug-ins off.

This module lies below all others and runs on boards too: Python 3.9, and the standard library alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import Distribution

T = TypeVar("T")
KINDS = ("target", "format", "scheme", "limit", "reader", "recipe", "model")
"""Each with the group `glyphpress.KINDs`."""
NO_PLUGINS = "GLYPHPRESS_NO_PLUGINS"
_PREFIX = "glyphpress."
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, order=True)
class Plugin:
    """One entry point of an installed package. kind: of KINDS, else the group. reference: "module:attribute".

    Raises TypeError for what is no text, as in a stored file that was edited.
    """

    kind: str
    name: str
    package: str
    version: str
    reference: str

    def __post_init__(self) -> None:
        """Reject what is no text."""
        if not all(isinstance(value, str) for value in vars(self).values()):
            raise TypeError("a plug-in is described by texts")

    def __str__(self) -> str:
        """Return `limit errors of glyphpress-example 0.1.0`."""
        return f"{self.kind} {self.name} of {self.package} {self.version}"


class PluginFailed(Exception):
    """What was asked for is a plug-in's, and the plug-in cannot give it: turned off, refused, or it does not load."""


_outcomes: dict[Plugin, Any] = {}
"""What each plug-in gave that was imported so far, or its PluginFailed."""
_told: set[str] = set()


def _by_warning(text: str) -> None:
    import warnings

    warnings.warn(text, RuntimeWarning, stacklevel=3)


_tell: Callable[[str], object] = _by_warning


def tell_problems(to: Callable[[str], object]) -> None:
    """Give what is wrong with a plug-in that nobody asked for to this function, in place of Python's warnings."""
    global _tell  # noqa: PLW0603 (one program, one place where its warnings go)
    _tell = to


def _tell_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        _tell(text)


def enabled() -> bool:
    """Return whether plug-ins may be used: GLYPHPRESS_NO_PLUGINS turns them off unless it is empty or 0."""
    return os.environ.get(NO_PLUGINS, "") in ("", "0")


@cache
def installed() -> tuple[Plugin, ...]:
    """Return all entry points of glyphpress that installed packages have, sorted; imports none of the packages."""
    from importlib import metadata

    found: dict[str, list[Plugin]] = {}
    for distribution in metadata.distributions():
        try:
            plugins = _plugins(distribution)
        except Exception as error:  # noqa: BLE001 (what is installed may be damaged in any way, and ends no program)
            _tell_once(f"the plug-ins of a package are not used: its metadata cannot be read ({_reason(error)})")
            continue
        if plugins:  # the first one on the path is the one that Python imports
            found.setdefault(re.sub(r"[-_.]+", "-", plugins[0].package).lower(), plugins)
    return tuple(sorted(plugin for plugins in found.values() for plugin in plugins))


def _plugins(distribution: Distribution) -> list[Plugin]:
    if _PREFIX not in (distribution.read_text("entry_points.txt") or ""):
        return []  # parsing the metadata of every package would take several times as long
    package, version = distribution.metadata["Name"], distribution.version
    entries = (entry for entry in distribution.entry_points if entry.group.startswith(_PREFIX))
    return [Plugin(_kind(entry.group), entry.name, package, version, entry.value) for entry in entries]


def _kind(group: str) -> str:
    kind = group[len(_PREFIX) :]
    return kind[:-1] if kind.endswith("s") and kind[:-1] in KINDS else group


def refusal(plugin: Plugin, taken: Mapping[str, object] | Collection[str]) -> str:
    """Return why a plug-in may not be used, an empty string where it may. taken: the built-in names of its kind."""
    if plugin.kind not in KINDS:
        return f"there is no group {plugin.kind}, only {', '.join(f'{_PREFIX}{kind}s' for kind in KINDS)}"
    if not enabled():
        return f"plug-ins are turned off ({NO_PLUGINS}, --no-plugins)"
    if not _NAME.fullmatch(plugin.name):
        return "a name has small letters, digits, - and _ only"
    if plugin.name in taken:
        what = taken[plugin.name] if isinstance(taken, Mapping) else ""
        return f"glyphpress has a {plugin.kind} of that name" + (f" ({what})" if isinstance(what, str) and what else "")
    others = (each for each in installed() if (each.kind, each.name) == (plugin.kind, plugin.name) and each != plugin)
    return next((f"{other.package} {other.version} has a {other.kind} of that name too" for other in others), "")


def offered(kind: str, taken: Mapping[str, object] | Collection[str]) -> dict[str, Plugin]:
    """Return the plug-ins of a kind that may be used, by name; tells of those that are refused."""
    found = {}
    for plugin in installed() if enabled() else ():
        if plugin.kind != kind:
            continue
        if reason := refusal(plugin, taken):
            _tell_once(f"the {plugin} is not used: {reason}")
        else:
            found[plugin.name] = plugin
    return found


def find(kind: str, name: str, taken: Mapping[str, object] | Collection[str]) -> Plugin:
    """Return the plug-in that gives a name, without importing it; taken: as in `refusal`.

    Raises KeyError where no plug-in does, or the name is taken: then it means something else. Raises PluginFailed where
    one does that may not be used.
    """
    plugin = next((each for each in installed() if (each.kind, each.name) == (kind, name)), None)
    if plugin is None or name in taken:
        raise KeyError(name)
    if reason := refusal(plugin, taken):
        raise PluginFailed(f"the {plugin} is not used: {reason}")
    return plugin


def resolved(reference: str) -> Any:
    """Return what a reference "module:attribute" names; imports the module."""
    from importlib import import_module

    module, _, attributes = reference.partition("[")[0].strip().partition(":")
    value: Any = import_module(module.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        value = getattr(value, attribute)
    return value


def load(plugin: Plugin, check: Callable[[str, Any], Any] | None = None) -> Any:
    """Import a plug-in once, and return what it gives; raises PluginFailed.

    check: takes the name and the value, returns what the name stands for, and raises for a value of another kind.
    """
    if isinstance(_outcomes.get(plugin), PluginFailed):
        raise _outcomes[plugin]
    try:
        if plugin not in _outcomes:
            _outcomes[plugin] = resolved(plugin.reference)
        return check(plugin.name, _outcomes[plugin]) if check else _outcomes[plugin]
    except (Exception, SystemExit) as error:
        advice = f"repair or uninstall {plugin.package}, or turn plug-ins off ({NO_PLUGINS}=1)"
        _outcomes[plugin] = PluginFailed(f"the {plugin} could not be loaded ({_reason(error)}); {advice}")
        raise _outcomes[plugin] from error


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def loaded() -> tuple[Plugin, ...]:
    """Return the plug-ins whose code this process has imported, sorted: no other can have taken part in a result."""
    return tuple(plugin for plugin in installed() if plugin in _outcomes) if _outcomes else ()


def to_blame(error: BaseException) -> Plugin | None:
    """Return the plug-in in whose code, or below it, an error was raised; None where there is none."""
    roots = {re.split(r"[.:]", plugin.reference)[0]: plugin for plugin in loaded()}
    traceback = error.__traceback__ if roots else None
    while traceback:
        module = str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if module in roots:
            return roots[module]
        traceback = traceback.tb_next
    return None


class Registry(Generic[T]):
    """What is known by name of one kind: the built-in table first, then plug-ins."""

    def __init__(
        self,
        kind: str,
        builtin: Callable[[], Mapping[str, Any]],
        check: Callable[[str, Any], T],
        reserved: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Take a kind of KINDS, and its table: name -> "module:attribute", or what the name stands for.

        check: as in `load`, for plug-ins. reserved: names that no plug-in may have, beside those of the table.
        """
        self.kind, self.builtin = kind, builtin
        self._check, self._reserved = check, reserved

    def taken(self) -> Mapping[str, object]:
        """Return every name that no plug-in may have."""
        return {**dict.fromkeys(self._reserved(), ""), **self.builtin()}

    def plugins(self) -> dict[str, Plugin]:
        """Return the plug-ins of this kind that may be used, by name; imports none."""
        return offered(self.kind, self.taken())

    def __iter__(self) -> Iterator[str]:
        """Yield every name, built-in ones first; imports no plug-in."""
        yield from self.builtin()
        yield from self.plugins()

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a name."""
        return name in self.builtin() or name in self.plugins()

    def get(self, name: str) -> T:
        """Return what a name stands for.

        Raises KeyError where there is no such name, and PluginFailed where only a plug-in has it that cannot be used.
        """
        builtin = self.builtin()
        if name in builtin:
            value: T = resolved(builtin[name]) if isinstance(builtin[name], str) else builtin[name]
            return value
        given: T = load(find(self.kind, name, self.taken()), self._check)
        return given

    def require(self, name: str) -> None:
        """Raise what `get` raises for a name that is unknown or may not be used; imports nothing."""
        if name not in self.builtin():
            find(self.kind, name, self.taken())

    def package(self, name: str) -> tuple[str, ...]:
        """Return the package of the plug-in that gives a name; none for a built-in name."""
        return () if name in self.builtin() else (self.plugins()[name].package,)

    def all(self) -> dict[str, T]:
        """Return everything of this kind by its name; plug-ins as `added` does."""
        return {name: self.get(name) for name in self.builtin()} | self.added()

    def added(self) -> dict[str, T]:
        """Return what plug-ins give, by name; tells of those that do not load, and leaves them out."""
        found: dict[str, T] = {}
        for name, plugin in self.plugins().items():
            try:
                found[name] = load(plugin, self._check)
            except PluginFailed as error:
                _tell_once(str(error))
        return found


def instance(kind: type[T]) -> Callable[[str, Any], T]:
    """Return a check that a plug-in gives an instance of a class, with the name of its entry point."""

    def check(name: str, value: Any) -> T:
        if not isinstance(value, kind):
            raise TypeError(f"it gives a {type(value).__name__}, and a {kind.__name__} is needed")
        return _named(name, value)

    return check


def subclass(kind: type[T]) -> Callable[[str, Any], type[T]]:
    """Return a check that a plug-in gives a subclass, whose objects need no argument and have the entry point's name.

    The class itself may be a protocol, which `issubclass` does not take.
    """

    def check(name: str, value: Any) -> type[T]:
        if not (isinstance(value, type) and kind in value.__mro__):
            raise TypeError(f"it gives {value!r:.60}, and a subclass of {kind.__name__} is needed")
        _named(name, value())
        return value

    return check


def _named(name: str, value: T) -> T:
    if (own := getattr(value, "name", name)) != name:
        raise ValueError(f"it is called {own!r:.60}, and its entry point {name}")
    return value
