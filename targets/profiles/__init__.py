"""Device profiles: TOML files that describe named devices, shipped in this folder or written by the user."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from targets.errors import TargetUnavailable, UnknownTarget, nearest, translated
from targets.host.text import as_written

SHIPPED = Path(__file__).parent
_LIST = "`glyphpress targets list` shows them"
_EXAMPLE = "`glyphpress targets show raspberry-pi-4` shows the keys of one"
_THREADS = 4096
_BUDGET = re.compile(r"\s*\d{0,12}\.?\d{1,12}\s*(B|KB|MB|KiB|MiB|ns|us|µs|ms|s)\s*")
BUDGETS = ("size", "packed", "p50", "p95", "memory")


@dataclass(frozen=True)
class DeviceProfile:
    """A device for which artifacts are made.

    reach: the target that connects to it (`ort-cpu`, `ssh://pi@kitchen`), empty where only the user knows it. emulate:
    the target that emulates it. runtime, threads: what applications there use. features: its CPU flags, named as in
    `machine_state`. budgets: typical limits, by their names in a policy.
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
        """Read a profile by its name or path; `extends = NAME` takes missing keys from another profile.

        Raises UnknownTarget with the file and the key.
        """
        path = _path(word)
        values = _read(path)
        return cls(**values | {"name": path.stem, "features": tuple(values.get("features", ()))})

    def address(self) -> str:
        """Return the target word in `reach`; raises TargetUnavailable where there is none."""
        if self.reach:
            return self.reach
        emulator = f", or its emulator {self.emulate}" if self.emulate else ""
        raise TargetUnavailable(
            f"{self.name}: the profile names no host",
            f'take ssh://USER@HOST{emulator}, or write a profile with `extends = "{self.name}"` and '
            '`reach = "ssh://USER@HOST"`',
        )


def folders() -> tuple[Path, ...]:
    """Return the folders of profiles: the user's (GLYPHPRESS_TARGETS, else the configuration folder), then ours."""
    if named := os.environ.get("GLYPHPRESS_TARGETS"):
        return Path(named), SHIPPED
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


def _read(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the values of a file, added to those of the profile that it extends."""
    try:
        with translated(
            lambda reason: UnknownTarget(f"{path}: not a device profile ({reason}); see `glyphpress targets show`")
        ):
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UnknownTarget(f"{path}: not a device profile ({error}); see `glyphpress targets show`") from error
    base = values.pop("extends", None)
    _check(path, values)
    if base is None:
        return values
    if not isinstance(base, str) or path in extended_by:
        raise UnknownTarget(f"{path}: extends is not the name of another profile; {_LIST}")
    base_values = _read(_path(base), (*extended_by, path))
    return base_values | values | {"budgets": base_values.get("budgets", {}) | values.get("budgets", {})}


def _check(path: Path, values: dict[str, Any]) -> None:
    known = {each.name: str(each.type) for each in fields(DeviceProfile) if each.name != "name"}
    for key, value in values.items():
        if key not in known:
            raise UnknownTarget(f"{path}: no key '{key}'; {nearest(key, known, _EXAMPLE)}")
        if not _fits(known[key], value):
            wanted = _WANTED[known[key].partition("[")[0]]
            raise UnknownTarget(f"{path}: {key} must be {wanted}, not {as_written(value)}; correct it")
    if not 0 <= values.get("threads", 1) <= _THREADS:
        raise UnknownTarget(f"{path}: threads is {values['threads']}, not 0 (all cores) to {_THREADS:,}; correct it")
    for budget, text in values.get("budgets", {}).items():
        if budget in BUDGETS and not _BUDGET.fullmatch(text):
            raise UnknownTarget(f"{path}: the budget {budget} is '{text:.40}', not a number and unit such as 10ms")
    for budget in sorted(set(values.get("budgets", {})) - set(BUDGETS)):
        raise UnknownTarget(f"{path}: no budget '{budget}'; {nearest(budget, BUDGETS, _EXAMPLE)}")


_WANTED = {
    "str": 'a text, such as "a"',
    "int": "a whole number",
    "tuple": 'a list of texts, such as ["a", "b"]',
    "dict": 'a table of texts, such as p50 = "10ms"',
}
"""How messages call the type of a key, by the name of that in Python."""


def _fits(kind: str, value: object) -> bool:
    if kind.startswith("dict"):
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    return type(value).__name__ == kind
