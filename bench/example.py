"""Run the examples of README and the docs again, and update their output: `python -m bench.example DIR:balanced`.

An example is a code block whose first line starts with `$ `. All examples run in one temporary folder, page by page in
the order of `PAGES`, because later ones use the files that earlier ones wrote. They find `emnist:balanced` in DIR.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    ROOT / name
    for name in (
        "README.md",
        "docs/tutorials/raspberry-pi.md",
        "docs/tutorials/ci-gate.md",
        "docs/tutorials/benchmark.md",
        "docs/how-to/how-many-images.md",
    )
)
BLOCK = re.compile(r"(?<=```\n)\$ .*?(?=```\n)", re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)


def examples(page: str) -> list[str]:
    """Return every example of a page: its commands, each after `$ `, with their output."""
    return BLOCK.findall(page)


def all_examples() -> list[str]:
    """Return the examples of all pages, in the order in which they run."""
    return [example for page in PAGES for example in examples(page.read_text(encoding="utf-8"))]


def run(shown: Iterable[str], data: str) -> Iterator[str]:
    """Yield every example with its new output; `data` is what `emnist:balanced` stands for.

    Raises:
        subprocess.CalledProcessError: an example's last command failed.
    """
    folder_of_data = data.removesuffix(":balanced")
    found = {} if folder_of_data == "emnist" else {"GLYPHPRESS_DATA": str(Path(folder_of_data).resolve())}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        for example in shown:
            done = subprocess.run(
                ["bash", "-c", _script(example)],
                cwd=folder,
                env={**os.environ, "PATH": path, "COLUMNS": "400", **found},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            yield "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def _script(example: str) -> str:
    """Return a shell script that prints each command before running it and leaves `$?` unchanged for it."""
    script = ""
    for match in COMMAND.finditer(example):
        script += f"status=$?; printf '%s\\n' {shlex.quote(match[0])}; (exit $status)\n{match[1]}\n"
    return script


def update(data: str) -> None:
    """Write the new output of every example into its page."""
    new = iter([*run(all_examples(), data)])
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for old in examples(text):
            text = text.replace(old, next(new))
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.example DATA, where DATA is DIR:balanced or emnist:balanced")
    update(sys.argv[1])
