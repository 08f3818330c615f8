"""Fixtures that several test folders share."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

import targets  # noqa: F401 (before any test imports a runtime, which would report that)
from tests.fixtures.printed_json import check_printed
from tests.fixtures.torch_operators import list_operators_once

# The same examples in every run, however slow the machine is.
settings.register_profile("glyphpress", derandomize=True, deadline=None)
settings.load_profile("glyphpress")

# Before torch is imported: two threads that wait by spinning take a busy machine's cores from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Where this suite runs in GitHub Actions, the page of its own job is no place for the verdicts of tests.
os.environ.pop("GITHUB_ACTIONS", None)

EMNIST = os.environ.get("GLYPHPRESS_EMNIST")
SHARED = Path(EMNIST) if EMNIST else Path(__file__).resolve().parents[2] / "shared" / "emnist"
WITHOUT_EMNIST = "the real EMNIST images are not here: NOT checked on them"


# Only where the converter cannot be had; where it can, as in CI, its absence fails every test that needs it.
NO_CONVERTER = find_spec("litert_torch") is None and platform.machine() != "x86_64"
ABSENT = ("litert-torch is not installed", "litert_torch")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip, loudly, what needs the TFLite converter on a machine that it has no wheels for."""
    report = yield
    if NO_CONVERTER and report.failed and call.excinfo and any(word in str(call.excinfo.value) for word in ABSENT):
        report.outcome = "skipped"
        where = str(item.path), item.location[1] or 0
        report.longrepr = (*where, "litert-torch has no wheels for this machine: conversion to TFLite NOT checked")
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, then those with many tests: at the end no process waits for a long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -count[item.path]))


def pytest_runtest_setup() -> None:
    """Do once in a process what libraries do again and again: list operators, look for garbage in modules."""
    if len(sys.modules) > FROZEN["modules"] + 100:
        # With torch and the converters loaded, a look through all objects takes 0.4 s: a seventh of the suite's time.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        FROZEN["modules"] = len(sys.modules)
    list_operators_once()


FROZEN = {"modules": 0}
"""How many modules were loaded when the garbage collector was last told to leave out what is there; 0 after timing,
which undoes that. Asking `gc` itself takes 0.1 s, since it counts the objects."""


def _unfreeze(unfreeze: Callable[[], None] = gc.unfreeze) -> None:
    unfreeze()
    FROZEN["modules"] = 0


gc.unfreeze = _unfreeze


@pytest.fixture(scope="session", autouse=True)
def timed_once() -> Iterator[Callable[..., bool]]:
    """Let nothing be timed twice since the suite's other process is at work; gives what decides that for users."""
    from toolchain.profiling import latency

    decide = latency._disturbed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_disturbed", lambda _: False)
        yield decide


@pytest.fixture(scope="session", autouse=True)
def _not_waiting_for_the_disk() -> Iterator[None]:
    """Leave out that files are on the disk before a power cut: no test pulls the plug, and each takes 6 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(scope="session")
def emnist_root() -> Path:
    """The real EMNIST files: of GLYPHPRESS_EMNIST, or beside the checkout. Without them a test is skipped, loudly."""
    if EMNIST and not SHARED.is_dir():
        pytest.fail(f"GLYPHPRESS_EMNIST: {EMNIST} is no folder")
    if not SHARED.is_dir():
        pytest.skip(WITHOUT_EMNIST)
    return SHARED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests the missing images have cost, and how to give them."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if WITHOUT_EMNIST in str(report.longrepr)]
    if skipped:
        terminalreporter.section("without the real EMNIST images")
        terminalreporter.line(
            f"{len(skipped)} tests were skipped: set GLYPHPRESS_EMNIST to the folder of the images, "
            f"or put it at {SHARED.parent.name}/{SHARED.name} beside this checkout"
        )


@dataclass(frozen=True)
class Finished:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def glyphpress(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Run the program in this process as a user would, error handling and exit code included."""
    from toolchain.cli.main import main

    def run(*words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["glyphpress", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert not (NO_CONVERTER and ABSENT[0] in err), err
        if "--json" in words:
            check_printed(out)
        return Finished(int(stop.value.code or 0), out, err)

    return run
