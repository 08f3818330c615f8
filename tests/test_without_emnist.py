"""What a run of the suite says where the real EMNIST images are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = "def test_one(emnist_root): pass\ndef test_two(emnist_root): pass\ndef test_three(): pass\n"


@pytest.mark.parametrize(
    ("emnist", "said", "ends"),
    [
        (
            None,
            "2 tests were skipped: set GLYPHPRESS_EMNIST to the folder of the images, or put it at",
            "1 passed, 2 s",
        ),
        (".", None, "3 passed"),
        ("nowhere", None, "2 errors"),
    ],
)
def test_a_run_without_the_images_says_how_many_tests_that_cost(
    emnist: str | None, said: str | None, ends: str, tmp_path: Path
) -> None:
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(CONFTEST, tests)
    (tests / "test_it.py").write_text(TESTS)
    (tests / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": str(CONFTEST.parents[1])}
    environment.pop("GLYPHPRESS_EMNIST", None)
    environment |= {"GLYPHPRESS_EMNIST": emnist} if emnist else {}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:anyio",
        "-p",
        "no:cacheprovider",
        str(tests),
    ]
    done = subprocess.run(command, cwd=tests, env=environment, capture_output=True, text=True, check=False)
    assert ends in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert ("tests were skipped" in done.stdout) == bool(said)
    assert (said or "") in done.stdout
