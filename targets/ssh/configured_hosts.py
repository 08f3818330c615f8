"""The hosts that a user's ssh configuration names, for completion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOST_FILES = 50


def configured_hosts(config: Path | None = None) -> list[str]:
    """Return the names behind `Host` in ~/.ssh/config, or in `config`, and in the files it includes; no patterns."""
    path = config or Path.home() / ".ssh" / "config"
    names = (name for name in _names(path, path.parent, set()) if not set("*?!") & set(name))
    return list(dict.fromkeys(names))


def words_of_hosts(begun: str) -> list[str]:
    """Return `ssh://HOST` for each configured host, with the user that was typed; else `ssh://`."""
    user, at, _ = begun.removeprefix("ssh://").rpartition("@")
    return [f"ssh://{user}{at}{host}" for host in configured_hosts()] or ["ssh://"]


def _names(path: Path, folder: Path, seen: set[Path]) -> Iterator[str]:
    if path in seen or len(seen) > _MOST_FILES:
        return
    seen.add(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        # `Host a b`, `Host=a` and `host "a"` mean the same.
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        words = [word.strip('"') for word in rest.split()]
        if keyword.lower() == "host":
            yield from words
        elif keyword.lower() == "include":
            for word in words:
                pattern = folder / Path(word).expanduser()
                root = Path(pattern.anchor)
                for included in sorted(root.glob(str(pattern.relative_to(root)))):
                    yield from _names(included, folder, seen)
