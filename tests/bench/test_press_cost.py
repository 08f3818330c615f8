"""A press beside bare calls: a process is measured with its children, and one that fails is no measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.press_cost import LIMITS, cost, table

ROOT = Path(__file__).resolve().parents[2]
TAKES_100_MB = "content = b'x' * 100_000_000"


@pytest.mark.parametrize(
    "program", [TAKES_100_MB, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TAKES_100_MB!r}])"]
)
def test_memory_of_children_counts(program: str) -> None:
    # From a small process: that of the tests may be larger than what it starts.
    measure = f"from bench.press_cost import cost; print(cost(['-c', {program!r}]).peak_mb)"
    done = subprocess.run([sys.executable, "-c", measure], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 100 < float(done.stdout) < 200


def test_a_press_that_timed_its_files_twice_is_marked() -> None:
    assert cost(["-c", "import sys; print('timing again, since other processes were busy', file=sys.stderr)"]).twice


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3: (?s:.*)what it said"):
        cost(["-c", "import sys; print('what it said', file=sys.stderr); sys.exit(3)"])


@pytest.mark.parametrize(("counted", "said"), [(1, "left out"), (2, "4 s too long")])
def test_the_table_says_which_rounds_count(counted: int, said: str) -> None:
    rounds = [{"press": {"twice": True}}, {"press": {"twice": counted == 2}}]
    medians = {name: dict.fromkeys(LIMITS, value) for name, value in (("bare", 10.0), ("press", 12.0))}
    found = {"command": "glyphpress press", "processor": "a CPU", "rounds": rounds, **medians, "ratios": {}}
    lines = table(found | {"ratios": dict.fromkeys(LIMITS, 1.2)}, counted).splitlines()
    assert said in lines[2]
    assert lines[-1].split() == ["peak", "memory,", "MB", "10.0", "12.0", "1.20", "1.15"]
