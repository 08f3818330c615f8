"""Device profiles: named devices, shipped in this folder or written by a user, in TOML."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from targets.errors import TargetUnavailable, UnknownTarget, nearest, translated

SHIPPED = Path(__file__).parent
_LIST = "`glyphpress targets list` shows them"
_EXAMPLE = "`glyphpress targets show raspberry-pi-4` shows the keys of one"
_THREADS = 4096
_BUDGET = re.compile(r"\s*\d{0,12}\.?\d{1,12}\s*(B|KB|MB|KiB|MiB|ns|us|µs|ms|s)\s*")
BUDGETS = ("size", "packed", "p50", "p95", "memory")


@dataclass(frozen=True)
class DeviceProfile:
    """A device that artifacts are made for.

    reach: the target word that leads to it (`ort-cpu`, `ssh://pi@kitchen`), empty where only the user knows it.
    emulate: the target word of its stand-in. runtime: the runtime that its users take. threads: what they run with.
    features: flags of its CPU, as `machine_state` names them. budgets: typical limits, by their names in a policy.
    """

    name: str
    summary: str = ""
    reach: str = ""
    emulate: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    memory: str = ""
    runtime: str = ""
    threads: int = 1
    budgets: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, word: str) -> DeviceProfile:
        """Read a profile by its name or its file; `extends = NAME` takes what it does not say from another.

        Raises UnknownTarget in one line that names the file and the key.
        """
        path = _path(word)
        values = _read(path)
        return cls(**values | {"name": path.stem, "features": tuple(values.get("features", ()))})

    def address(self) -> str:
        """Return the word that leads to the device; raises TargetUnavailable where the profile names none."""
        if self.reach:
            return self.reach
        stand_in = f", or its stand-in {self.emulate}" if self.emulate else ""
        raise TargetUnavailable(
            f"{self.name}: the profile names no host",
            f'take ssh://USER@HOST{stand_in}, or write a profile with `extends = "{self.name}"` and '
            '`reach = "ssh://USER@HOST"`',
        )


def folders() -> tuple[Path, ...]:
    """Return where profiles are looked for, a user's own first (GLYPHPRESS_TARGETS, else his configuration folder)."""
    if own := os.environ.get("GLYPHPRESS_TARGETS"):
        return Path(own), SHIPPED
    try:
        return user_config_path("glyphpress") / "targets", SHIPPED
    except RuntimeError:
        # There is no home.
        return (SHIPPED,)


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted({path.stem for folder in folders() if os.access(folder, os.R_OK) for path in folder.glob("*.toml")})


def is_profile(word: str) -> bool:
    """Return whether a word is the name or the file of a profile."""
    return word.endswith(".toml") or word in profile_names()


def _path(word: str) -> Path:
    if word.endswith(".toml"):
        return Path(word)
    for folder in folders():
        if (path := folder / f"{word}.toml").is_file():
            return path
    raise UnknownTarget(f"no device profile '{word}'; {nearest(word, profile_names(), _LIST)}")


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what a file says, on top of what it extends."""
    try:
        with translated(
            lambda reason: UnknownTarget(f"{path}: no device profile ({reason}); see `glyphpress targets show`")
        ):
            values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnknownTarget(f"{path}: no device profile ({error}); see `glyphpress targets show`") from error
    base = values.pop("extends", None)
    _check(path, values)
    if base is None:
        return values
    if not isinstance(base, str) or path in seen:
        raise UnknownTarget(f"{path}: extends names no other profile; {_LIST}")
    below = _read(_path(base), (*seen, path))
    return below | values | {"budgets": below.get("budgets", {}) | values.get("budgets", {})}


def _check(path: Path, values: dict[str, Any]) -> None:
    known = {one.name: str(one.type) for one in fields(DeviceProfile) if one.name != "name"}
    for key, value in values.items():
        if key not in known:
            raise UnknownTarget(f"{path}: no key '{key}'; {nearest(key, known, _EXAMPLE)}")
        if not _fits(known[key], value):
            raise UnknownTarget(f"{path}: {key} is no {known[key]}; correct it")
    if not 0 <= values.get("threads", 1) <= _THREADS:
        raise UnknownTarget(f"{path}: threads is {values['threads']}, not 0 (all cores) to {_THREADS:,}; correct it")
    for budget, text in values.get("budgets", {}).items():
        if budget in BUDGETS and not _BUDGET.fullmatch(text):
            raise UnknownTarget(f"{path}: the budget {budget} is '{text:.40}', no number and unit such as 10ms")
    for budget in sorted(set(values.get("budgets", {})) - set(BUDGETS)):
        raise UnknownTarget(f"{path}: no budget '{budget}'; {nearest(budget, BUDGETS, _EXAMPLE)}")


def _fits(kind: str, value: object) -> bool:
    if kind.startswith("dict"):
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return type(value).__name__ == kind
