"""Device profiles: named devices, shipped in `targets/profiles/` or written by a user, in TOML."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from targets.errors import TargetUnavailable, UnknownTarget

SHIPPED = Path(__file__).with_name("profiles")


@dataclass(frozen=True)
class DeviceProfile:
    """A device that artifacts are made for.

    reach: the target word that leads to it (`ort-cpu`, `ssh://pi@kitchen`), empty where only the user knows it.
    emulate: the target word of its stand-in. threads: what its users run with. features: flags of its CPU, as
    `machine_state` names them. budgets: typical limits by the names that a policy has (`size`, `p95`, `memory`).
    """

    name: str
    summary: str
    reach: str = ""
    emulate: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    threads: int = 1
    budgets: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, word: str) -> DeviceProfile:
        """Read a profile by its name or its file; raises UnknownTarget."""
        path = Path(word) if word.endswith(".toml") else _found(word)
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(**{"name": path.stem} | values | {"features": tuple(values.get("features", ()))})
        except (OSError, ValueError, TypeError) as error:
            raise UnknownTarget(f"{path}: not a device profile ({error}); see `glyphpress targets show`") from error

    def address(self) -> str:
        """Return the word that leads to the device; raises TargetUnavailable where the profile names none."""
        if self.reach:
            return self.reach
        stand_in = f", or take its stand-in {self.emulate}" if self.emulate else ""
        raise TargetUnavailable(f"{self.name}: the profile names no host; take ssh://USER@HOST{stand_in}")


def folders() -> tuple[Path, ...]:
    """Return where profiles are looked for, a user's own first (GLYPHPRESS_TARGETS, else his configuration folder)."""
    own = os.environ.get("GLYPHPRESS_TARGETS")
    return (Path(own) if own else user_config_path("glyphpress") / "targets", SHIPPED)


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted({path.stem for folder in folders() if folder.is_dir() for path in folder.glob("*.toml")})


def _found(name: str) -> Path:
    for folder in folders():
        if (path := folder / f"{name}.toml").is_file():
            return path
    raise UnknownTarget(f"no device profile '{name}'; known: {', '.join(profile_names())}")
