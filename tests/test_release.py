"""What is published: one version everywhere, and a source distribution and a wheel that hold the same program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.fixtures.environments import PACKAGES, ROOT, copied_sources, wheel_once

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DOCUMENTS = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "MANIFEST.in", "pyproject.toml"}
MADE = {"PKG-INFO", "setup.cfg", "glyphpress.egg-info"}
LARGEST = 4_000_000
"""Bytes of the source distribution; the weights of the reference models are two thirds of it."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout, made where tests and measurements lie beside the sources."""
    folder = tmp_path_factory.mktemp("release")
    sources = copied_sources(folder / "sources")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, sources)
    for stray in ("tests/test_stray.py", "bench/results/stray.json", "build/lib/stray.py", "dist/stray.whl", ".env"):
        (sources / stray).parent.mkdir(parents=True, exist_ok=True)
        (sources / stray).touch()
    build = "import setuptools.build_meta as backend, sys; print(backend.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, folder], cwd=sources, check=True, capture_output=True)
    packed = folder / f"glyphpress-{VERSION}.tar.gz"
    assert packed.stat().st_size < LARGEST
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"glyphpress-{VERSION}"


def relative(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_source_distribution_holds_the_program_and_nothing_else(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == DOCUMENTS | MADE | {*PACKAGES}
    for package in PACKAGES:
        assert relative(unpacked / package) == relative(ROOT / package)


def test_a_wheel_of_the_source_distribution_is_that_of_the_checkout(
    unpacked: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", tmp_path, unpacked], check=True)
    ours, theirs = (zipfile.ZipFile(wheel) for wheel in (wheel_once(tmp_path_factory), next(tmp_path.glob("*.whl"))))
    with ours, theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())
        changed = [name for name in ours.namelist() if ours.read(name) != theirs.read(name)]
        assert changed == []
        tops = {PurePosixPath(name).parts[0] for name in ours.namelist()}
    assert tops == {*PACKAGES, f"glyphpress-{VERSION}.dist-info"}


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[0].split(" - ")[0] == VERSION
    assert "Unreleased" not in headings[1:]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - 20\d\d-\d\d-\d\d", heading) for heading in released)
    numbers = [tuple(map(int, heading.split(" - ")[0].split("."))) for heading in released]
    assert numbers == sorted(numbers, reverse=True)
