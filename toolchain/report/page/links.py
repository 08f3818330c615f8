"""Addresses of files beside a page. A name is a part of a path and nothing else, whatever characters it holds."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from toolchain.report.page.blocks import Link


def file_link(name: str, folder: str = ".") -> Link:
    """Return the link that downloads a file. folder: where it lies, seen from the page, in POSIX form."""
    return Link(name, f"{quoted_folder(folder)}/{quoted(name)}", download=True)


def quoted_folder(folder: str) -> str:
    """Return a relative folder percent-encoded; it never begins with a scheme such as `javascript:`."""
    parts = [quoted(part) for part in folder.split("/") if part not in ("", ".")]
    return "/".join([*([] if parts[:1] == [".."] else ["."]), *parts])


def seen_from(page: Path, folder: Path) -> str:
    """Return a folder as the page `page` sees it, in POSIX form."""
    return Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()


def quoted(name: str) -> str:
    """Return a name percent-encoded, slashes too."""
    return quote(name, safe="", errors="surrogateescape")
