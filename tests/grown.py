"""How much memory commands take, one after another in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHILD = """
import gc, json, re, sys
from pathlib import Path

from toolchain.cli.main import main


def resident(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])


for words in json.loads(sys.argv[1]):
    sys.argv = ["glyphpress", *words]
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: VmHWM begins anew
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
    print("grown", resident("VmHWM") - before, file=sys.stderr)
"""


def grown(folder: Path, commands: Sequence[Sequence[str]]) -> list[int]:
    """Run commands in `folder`; return by how many bytes each let the process grow at its most."""
    command = [sys.executable, "-c", CHILD, json.dumps(commands)]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return [int(line.split()[1]) for line in finished.stderr.splitlines() if line.startswith("grown ")]
