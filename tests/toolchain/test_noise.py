"""Where what converters say is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from toolchain.noise import KEPT

RUN = "import os; from toolchain.noise import noise_to\nwith noise_to():\n    os.write(2, {said!r})"


def test_row43_each_run_has_a_log_of_its_own_and_the_last_ones_stay(tmp_path: Path) -> None:
    folder = tmp_path / "glyphpress" / "log"
    folder.mkdir(parents=True)
    for number in range(KEPT + 5):
        (folder / f"converters-2020-{number}.log").write_text("old")
        os.utime(folder / f"converters-2020-{number}.log", (number, number))
    for said in (b"first", b"second"):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", RUN.format(said=said)], env=environment, check=True)
    logs = sorted(folder.iterdir(), key=lambda log: log.stat().st_mtime)
    assert [log.read_text() for log in logs] == ["old"] * (KEPT - 2) + ["first", "second"]
