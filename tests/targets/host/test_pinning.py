"""Keeping to some cores, here and in an agent."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from targets import catalog
from targets.agent.remote import local_agent
from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.machine import pinned

CORES = sorted(os.sched_getaffinity(0))
MISSING = os.cpu_count() or 0
needs_two = pytest.mark.skipif(len(CORES) < 2, reason="one core only: NOT checked")


def threads() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def allowed(thread: Path) -> str:
    lines = (thread / "status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list"))


@needs_two
@pytest.mark.parametrize("word", ["ort-cpu", "litert-cpu"])
def test_the_threads_of_a_runtime_keep_to_the_cores(word: str, request: pytest.FixtureRequest) -> None:
    subject: Artifact = request.getfixturevalue("onnx_artifact" if word == "ort-cpu" else "tflite_artifact")
    before = threads()
    with pinned(CORES[1:2]), catalog.get(word).open(subject, threads=2) as session:
        fresh = threads() - before
        assert fresh
        assert {allowed(thread) for thread in fresh} == {str(CORES[1])}
        assert session.facts.threads == 2
    assert sorted(os.sched_getaffinity(0)) == CORES


@pytest.mark.parametrize("cores", [[MISSING], [CORES[0], MISSING]], ids=["alone", "among others"])
def test_a_core_that_is_not_there_is_named_and_nothing_changes(cores: list[int]) -> None:
    with pytest.raises(RunFailed, match=f"{MISSING}.*may use {CORES[0]}") as caught, pinned(cores):
        pass
    assert "\n" not in str(caught.value)
    assert sorted(os.sched_getaffinity(0)) == CORES


@needs_two
def test_an_agent_is_pinned_by_request(onnx_artifact: Artifact) -> None:
    with closing(local_agent()) as agent:
        with pytest.raises(RunFailed, match="may use"):
            agent.request("pin", cores=[MISSING])
        agent.request("pin", cores=[CORES[1]])
        answer, _ = agent.request("hello")
    assert answer["machine"]["pinned"] == [CORES[1]]
