"""Run README's examples again and write what they print: `python -m bench.example DIR:balanced`.

An example is a block of README whose first line is a command after
`$ `. All of them run in one temporary folder, in README's order, since a gate judges what the press before it wrote.
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
    """Return every example of README: its commands, each after `$ `, with what they print."""
    return BLOCK.findall(readme)


def run(readme: str, data: str) -> Iterator[str]:
    """Yield every example as it is printed now, with `data` in place of `DIR:balanced`.

    Raises:
        subprocess.CalledProcessError: an example's last command failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as work:
        for example in examples(readme):
            done = subprocess.run(
                ["bash", "-c", _script(example, data)],
                cwd=work,
                env={**os.environ, "PATH": path, "COLUMNS": "400"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            yield "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def _script(example: str, data: str) -> str:
    """Return a shell script that prints each command of an example before it runs, and keeps `$?` as it was."""
    script = ""
    for found in COMMAND.finditer(example):
        command = found[1].replace("DIR:balanced", shlex.quote(data))
        script += f"status=$?; printf '%s\\n' {shlex.quote(found[0])}; (exit $status)\n{command}\n"
    return script


def written(readme: str, data: str) -> str:
    """Return README's text with its examples as they are printed now."""
    for old, new in zip(examples(readme), run(readme, data), strict=True):
        readme = readme.replace(old, new)
    return readme


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.example DATA, where DATA is a balanced split such as emnist:balanced")
    README.write_text(written(README.read_text(encoding="utf-8"), sys.argv[1]), encoding="utf-8")
