"""Where what converters say is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.core.converter_log import KEPT, output_to_log
from toolchain.core.errors import StageError

RUN = (
    "import os; from toolchain.core.converter_log import output_to_log\n"
    "with output_to_log():\n    os.write(2, {said!r})"
)


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


ENDED = "a converter ended the program; what it said is in "
WITH_C = (
    "import ctypes, signal, sys\nfrom pathlib import Path\nfrom toolchain.core.converter_log import output_to_log\n"
    "libc, log = ctypes.CDLL(None), Path(sys.argv[1])\n"
)


def _ran(body: str, tmp_path: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", WITH_C + body, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("libc.exit(1)", id="exit"),
        pytest.param("libc.exit(0)", id="exit-0"),
        pytest.param("libc.abort()", id="abort"),
        # While Python's lock is held, so that none of it can run.
        pytest.param("libc.signal(14, libc.abort); libc.alarm(1); ctypes.PyDLL(None).sleep(30)", id="abort-locked"),
    ],
)
def test_row59_a_converter_that_ends_the_program_is_one_line_and_no_failed_gate(call: str, tmp_path: Path) -> None:
    code, said = _ran(f"with output_to_log(log): {call}", tmp_path)
    assert code == 3
    assert said.startswith(f"glyphpress: {ENDED}{tmp_path}/log; ")
    assert said.count("\n") == 1


def test_what_comes_after_a_converter_ends_with_its_own_code(tmp_path: Path) -> None:
    assert _ran("with output_to_log(log): pass\nlibc.exit(4)", tmp_path) == (4, "")
    assert _ran("with output_to_log(log): pass\nlibc.abort()", tmp_path) == (-6, "")


def test_a_converter_that_calls_sys_exit_is_a_failed_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=ENDED), output_to_log(tmp_path / "log"):
        sys.exit(1)
