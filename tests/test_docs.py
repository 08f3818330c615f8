"""The documentation is true: links lead somewhere, commands exist, generated parts are those of the code."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click
from markdown.extensions.toc import slugify

from bench.pictures import IMAGES, PICTURES
from bench.reference import SECTIONS, with_sections
from toolchain.cli.main import glyphpress

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BY_HAND = [
    ROOT / "README.md",
    *(page for page in PAGES if "design" not in page.parts and page.name != "commands.md"),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+|@import|url\([\"']?(?:https?:)?//"
)
COMMAND = re.compile(r"^(?:\$ )?(glyphpress (?:.*\\\n)*.*)$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slugify(heading, "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / f"{stem}.md" for stem in ("README", "CONTRIBUTING", "CHANGELOG"))], ids=name
)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        # The site holds no other files.
        assert page.parent == ROOT or target.is_relative_to(DOCS), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_generated_parts_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_sections(text) == text, "run `make format`"


def test_every_generated_part_has_a_page() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert all(any(f"<!-- {section} -->\n" in text for text in texts) for section in SECTIONS)


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_what_the_statistics_say(picture: str) -> None:
    assert (IMAGES / picture).read_text(encoding="utf-8") == PICTURES[picture](), "run `python -m bench.pictures`"


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of glyphpress in a page: a line of a code block, or code in a sentence."""
    blocks = [block for language, block in FENCE.findall(text) if language in {"", "sh"}]
    lines = [line for block in blocks for line in COMMAND.findall(block)]
    lines += re.findall(r"`(glyphpress [a-z][^`]*)`", FENCE.sub("", text))
    for line in lines:
        words = shlex.split(line.replace("\\\n", " ").replace("\\|", "|"), comments=True)
        ends = [number for number, word in enumerate(words) if word in {"|", ">", "&&", ";"}]
        yield words[1 : min(ends, default=None)]


@pytest.mark.parametrize("page", BY_HAND, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        command: click.Command = glyphpress
        context = click.Context(glyphpress)
        for word in words:
            if isinstance(command, click.Group) and re.fullmatch("[a-z0-9-]+", word) and word[0] != "-":
                found = command.get_command(context, word)
                assert found or command.invoke_without_command, words
                command = found or command
            elif word.startswith("-") and word != "-":
                options = {option for parameter in command.get_params(context) for option in parameter.opts}
                assert word.partition("=")[0] in options, words


def test_tags_that_pages_name_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    named = {
        tag for page in BY_HAND for tag in re.findall(r"(?:@|rev: )v(\d+\.\d+\.\d+)", page.read_text(encoding="utf-8"))
    }
    assert named == {version}


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    built = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in {".html", ".css"}:
            assert not LOADED.findall(path.read_text(encoding="utf-8")), path
    for page in PAGES:
        built_page = tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")
        assert built_page.is_file() or page.name == "README.md", page
