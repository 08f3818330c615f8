"""What a CI machine installs glyphpress from: a commit of a git repository, a wheel, or a version in an index."""

from __future__ import annotations

import filecmp
import json
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from toolchain.core.errors import UsageProblem

EXAMPLES = "git+https://HOST/OWNER/glyphpress@COMMIT, wheels/glyphpress-VERSION-py3-none-any.whl or glyphpress==VERSION"

# A commit, or a tag such as v0.2.0: branches move, and a gate that changes by itself judges nothing.
_GIT = re.compile(r"git\+(?P<url>(?:https|ssh)://\S+)@(?P<commit>[0-9a-f]{40}|v?\d[\w.+-]*)")
_WHEEL = re.compile(r"glyphpress-[\w.!+]+-py3-none-any\.whl")
_VERSION = re.compile(r"glyphpress==[\w.!+]+")
# A password, or a token in place of a user; ssh needs the name of one.
_SECRET = re.compile(r"https?://[^/@]*@|://[^/@]*:[^/@]*@")


@dataclass(frozen=True)
class Source:
    """A source that stays the same. text: as `pip install` takes it without extras.

    repository and commit: of git; None for others.
    """

    text: str
    repository: str | None = None
    commit: str | None = None

    def requirement(self, *extras: str) -> str:
        """Return the word for `pip install`, with extras of glyphpress."""
        chosen = f"[{','.join(extras)}]" if extras else ""
        if "://" in self.text:
            return f"glyphpress{chosen} @ {self.text}"
        name, equals, version = self.text.partition("==")
        return f"{name}{chosen}{equals}{version}"


def read_source(text: str, folder: Path | None = None) -> Source:
    """Return the source that a text names; a wheel without `://` is a path below `folder` (the current one by default).

    Raises UsageProblem for what is not pinned, what another machine does not have, and what would publish a password.
    """
    if not text.isprintable() or "$" in text or " " in text:
        raise UsageProblem(f"{text!r} cannot be written into a CI file; give {EXAMPLES}")
    if _SECRET.search(text):
        raise UsageProblem("the address holds a password or token, which a CI file would publish; leave it out")
    if git := _GIT.fullmatch(text):
        return Source(text, git["url"], git["commit"])
    if text.startswith("git+"):
        raise UsageProblem(f"{text} is no commit or tag that CI can fetch (a branch would move); give {EXAMPLES}")
    if _VERSION.fullmatch(text):
        return Source(text)
    address, _, digest = text.partition("#")
    if not _WHEEL.fullmatch(PurePosixPath(address).name) or (
        digest and not re.fullmatch("sha256=[0-9a-f]{64}", digest)
    ):
        raise UsageProblem(f"{text} is nothing that CI could install; give {EXAMPLES}")
    if "://" in text:
        if not text.startswith("https://"):
            raise UsageProblem(f"{text} is no address that another machine can trust; give one with https://")
        return Source(text)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise UsageProblem(f"{text} lies outside the repository, where CI does not find it; copy the wheel into it")
    if not (folder or Path()).joinpath(path).is_file():
        raise UsageProblem(f"no file {text}; copy the wheel there, since CI installs it from the repository")
    return Source(f"./{path}")


def installed_source() -> Source | None:
    """Return what the running glyphpress was installed from, as pip recorded it (PEP 610).

    For a folder it is the commit of its git checkout, if a remote has that commit and the installed code is that of it.
    None where another machine has no such source: another folder, or an index that pip did not record.
    """
    try:
        recorded = distribution("glyphpress").read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    facts: dict[str, Any] = json.loads(recorded) if recorded else {}
    url = str(facts.get("url", ""))
    if not recorded or "dir_info" in facts:
        folder = Path(unquote(urlsplit(url).path)) if url.startswith("file://") else PACKAGE.parent
        text = _checked_out(folder)
    elif re.match("(https|ssh)://", url):
        git = facts.get("vcs_info", {})
        text = f"git+{url}@{git.get('commit_id')}" if git.get("vcs") == "git" else url
    else:
        return None
    try:
        return read_source(text) if text else None
    except UsageProblem:
        return None


PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of the package that runs."""
# `git@git.example.org:them/glyphpress.git`, as git clones by ssh.
_SSH = re.compile(r"(?P<host>[\w.-]+@[\w.-]+):(?P<path>[^/].*)")


def _checked_out(folder: Path) -> str:
    """Return `git+URL@COMMIT` of a checkout whose commit its remote has; empty for another folder, or changed code."""
    if not (folder / ".git").exists() or not (folder / PACKAGE.name).is_dir() or _changed(folder):
        return ""
    branch = next(iter(_git(folder, "branch", "--remotes", "--contains", "HEAD", "--format=%(refname:short)")), "")
    remote = branch.partition("/")[0]
    url = next(iter(_git(folder, "remote", "get-url", remote)), "") if remote else ""
    if ssh := _SSH.fullmatch(url):
        url = f"ssh://{ssh['host']}/{ssh['path']}"
    commit = next(iter(_git(folder, "rev-parse", "HEAD")), "")
    return f"git+{url}@{commit}" if url and commit else ""


def _changed(folder: Path) -> bool:
    """Return whether the checkout has changes that are in no commit, or is no longer what was installed from it."""
    if _git(folder, "status", "--porcelain", "--untracked-files=no"):
        return True
    checkout = folder / PACKAGE.name
    if checkout.resolve() == PACKAGE:
        return False
    here, there = ({path.relative_to(root): path for path in root.rglob("*.py")} for root in (PACKAGE, checkout))
    return here.keys() != there.keys() or any(not filecmp.cmp(path, there[name], False) for name, path in here.items())


def _git(folder: Path, *words: str) -> list[str]:
    """Return the lines that git prints, none where it fails or is not installed."""
    # Neither the repository's hooks nor its settings may start a program.
    ask = ("git", "-C", str(folder), "-c", "core.fsmonitor=false", *words)
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
