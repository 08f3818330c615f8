"""Run README's examples again and update their output: `python -m bench.example DIR:balanced`.

An example is a code block of README whose first line starts with `$ `. All examples run in one temporary folder in
README's order, because later ones use the files that earlier ones wrote.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(?<=```\n)\$ .*?(?=```\n)", re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)$", re.MULTILINE)


def examples(readme: str) -> list[str]:
    """Return every example of README: its commands, each after `$ `, with their output."""
    return BLOCK.findall(readme)


def run(readme: str, data: str) -> Iterator[str]:
    """Yield every example with its new output; `data` takes the place of `DIR:balanced`.

    Raises:
        subprocess.CalledProcessError: an example's last command failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        for example in examples(readme):
            done = subprocess.run(
                ["bash", "-c", _script(example, data)],
                cwd=folder,
                env={**os.environ, "PATH": path, "COLUMNS": "400"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            yield "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def _script(example: str, data: str) -> str:
    """Return a shell script that prints each command before running it and leaves `$?` unchanged for it."""
    script = ""
    for match in COMMAND.finditer(example):
        command = match[1].replace("DIR:balanced", shlex.quote(data))
        script += f"status=$?; printf '%s\\n' {shlex.quote(match[0])}; (exit $status)\n{command}\n"
    return script


def with_new_output(readme: str, data: str) -> str:
    """Return README's text with the examples' new output."""
    for old, new in zip(examples(readme), run(readme, data), strict=True):
        readme = readme.replace(old, new)
    return readme


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.example DATA, where DATA is a balanced split such as emnist:balanced")
    README.write_text(with_new_output(README.read_text(encoding="utf-8"), sys.argv[1]), encoding="utf-8")
