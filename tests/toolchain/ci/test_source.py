"""What CI installs: only what stays the same and what another machine can have."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from toolchain.ci import source
from toolchain.ci.source import installed_source, read_source
from toolchain.core.errors import UsageProblem

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT = f"git+https://git.example.org/them/glyphpress@{COMMIT}"
WHEEL = "glyphpress-0.2.0-py3-none-any.whl"
ADDRESS = f"https://files.example.org/{WHEEL}#sha256={'0' * 64}"


@pytest.mark.parametrize("text", [GIT, f"git+ssh://git@git.example.org/them/glyphpress@{COMMIT}", ADDRESS])
def test_an_address_is_a_requirement_with_extras(text: str) -> None:
    requirement = Requirement(read_source(text).requirement("litert"))
    assert (requirement.name, requirement.extras, requirement.url) == ("glyphpress", {"litert"}, text)


def test_a_commit_and_a_tag_are_known() -> None:
    assert read_source(GIT).commit == COMMIT
    assert read_source("git+https://git.example.org/them/glyphpress@v0.2.0").commit == "v0.2.0"
    assert read_source("glyphpress==0.2.0").requirement("litert") == "glyphpress[litert]==0.2.0"


def test_a_wheel_lies_in_the_repository(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no file wheels/"):
        read_source(f"wheels/{WHEEL}", tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).touch()
    assert read_source(f"wheels/{WHEEL}", tmp_path).requirement() == f"./wheels/{WHEEL}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("git+https://git.example.org/them/glyphpress", "is no commit or tag"),
        ("git+https://git.example.org/them/glyphpress@main", "is no commit or tag"),
        (f"git+https://me:hunter2@git.example.org/them/glyphpress@{COMMIT}", "a password"),
        (f"git+https://hunter2@git.example.org/them/glyphpress@{COMMIT}", "a password or token"),
        (f"git+http://git.example.org/them/glyphpress@{COMMIT}", "is no commit or tag"),
        (f"http://files.example.org/{WHEEL}", "no address that another"),
        (f"file:///tmp/{WHEEL}", "no address that another machine can trust"),
        (f"git+file:///home/me/glyphpress@{COMMIT}", "is no commit or tag"),
        (f"/tmp/{WHEEL}", "outside the repository"),
        (f"../{WHEEL}", "outside the repository"),
        ("other-1.0-py3-none-any.whl", "nothing that CI could install"),
        ("glyphpress>=0.2", "nothing that CI could install"),
        ("glyphpress", "nothing that CI could install"),
        (f"{WHEEL}#sha256=beef", "nothing that CI could install"),
        (f"{GIT} --index-url=http://evil.example.org", "cannot be written"),
        ("${{ secrets.TOKEN }}", "cannot be written"),
    ],
)
def test_what_changes_by_itself_or_is_not_there_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageProblem, match=message) as raised:
        read_source(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (f'{{"url": "https://git.example.org/g", "vcs_info": {{"vcs": "git", "commit_id": "{COMMIT}"}}}}', GIT),
        (f'{{"url": "https://files.example.org/{WHEEL}", "archive_info": {{}}}}', ADDRESS.partition("#")[0]),
        ('{"url": "file:///home/me/glyphpress", "dir_info": {"editable": true}}', None),
        (None, None),
    ],
    ids=["git", "wheel", "folder", "index"],
)
def test_what_pip_recorded_is_the_default(
    record: str | None, text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if record is not None:
        (tmp_path / "direct_url.json").write_text(record)
    monkeypatch.setattr(source, "distribution", lambda _name: PathDistribution(tmp_path))
    monkeypatch.setattr(source, "PACKAGE", tmp_path / "toolchain")
    found = installed_source()
    assert (found and found.text) == (text and text.replace("them/glyphpress", "g"))


def git(folder: Path, *words: str) -> str:
    """Run git with a name of its own and without the user's settings."""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ("git", "-C", str(folder), *who, *words), capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the package that runs, whose one commit is pushed, and which pip installed from its folder."""
    folder = tmp_path / "a checkout"
    (folder / "toolchain").mkdir(parents=True)
    (folder / "toolchain" / "a.py").write_text("1\n")
    git(tmp_path, "init", "--bare", "pushed.git")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    git(folder, "remote", "add", "origin", str(tmp_path / "pushed.git"))
    git(folder, "push", "origin", "HEAD:main")
    git(folder, "remote", "set-url", "origin", "https://git.example.org/them/glyphpress.git")
    (tmp_path / "direct_url.json").write_text(json.dumps({"url": folder.as_uri(), "dir_info": {}}))
    monkeypatch.setattr(source, "distribution", lambda _name: PathDistribution(tmp_path))
    monkeypatch.setattr(source, "PACKAGE", folder / "toolchain")
    return folder


def text_of_the_source() -> str | None:
    found = installed_source()
    return found and found.text


def test_the_pushed_commit_of_a_checkout_is_the_default(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert text_of_the_source() == f"git+https://git.example.org/them/glyphpress.git@{commit}"
    git(checkout, "remote", "set-url", "origin", "git@git.example.org:them/glyphpress.git")
    assert text_of_the_source() == f"git+ssh://git@git.example.org/them/glyphpress.git@{commit}"
    # `pip install .` copied it to another folder.
    copied = checkout.parent / "toolchain"
    shutil.copytree(checkout / "toolchain", copied)
    monkeypatch.setattr(source, "PACKAGE", copied)
    assert str(text_of_the_source()).endswith(commit)
    (copied / "a.py").write_text("2\n")
    assert text_of_the_source() is None


def test_a_checkout_that_ci_cannot_fetch_is_none(checkout: Path) -> None:
    git(checkout, "remote", "set-url", "origin", "https://me:hunter2@git.example.org/them/glyphpress.git")
    assert text_of_the_source() is None
    git(checkout, "remote", "set-url", "origin", "https://git.example.org/them/glyphpress.git")
    (checkout / "toolchain" / "a.py").write_text("2\n")
    assert text_of_the_source() is None
    git(checkout, "commit", "-am", "not pushed")
    assert text_of_the_source() is None
    shutil.rmtree(checkout / ".git")
    assert text_of_the_source() is None
