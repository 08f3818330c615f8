"""Emulated Arm processors: the host's answers, and instruction counts that tell where int8 pays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from targets import catalog
from targets.arm64 import PYTHON, SITE, Arm64Target, arm64_root
from targets.artifact import Artifact
from targets.errors import RunFailed, TargetUnavailable, UnknownTarget
from targets.host import cache
from targets.session import TimingPlan
from tests.fixtures.emulated import emulated
from tests.fixtures.small_models import glyphs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def a72() -> Arm64Target:
    return emulated("cortex-a72")


@pytest.fixture(scope="module")
def a76() -> Arm64Target:
    return emulated("cortex-a76")


@pytest.mark.slow
def test_what_the_emulator_imports_is_compiled(a72: Arm64Target) -> None:
    """Where this Python can: an emulator that compiles numpy anew takes half as long again to start."""
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        assert list((arm64_root() / SITE / "numpy/__pycache__").glob("__init__.*.pyc"))


@pytest.mark.slow
def test_int8_answers_are_the_hosts_to_the_bit(a72: Arm64Target, a76: Arm64Target, int8_artifact: Artifact) -> None:
    images = glyphs(60)
    with catalog.default_for("tflite").open(int8_artifact) as local:
        meant = local.run(images)
    for target in (a72, a76):
        with target.open(int8_artifact) as guest:
            assert np.array_equal(guest.run(images), meant)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx_artifact", "tflite_artifact"])
def test_float_answers_are_the_hosts_within_rounding(
    a72: Arm64Target, kind: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(kind)
    images = glyphs(40)
    with a72.open(artifact) as guest, catalog.default_for(artifact.format).open(artifact) as local:
        np.testing.assert_allclose(guest.run(images), local.run(images), atol=1e-4)


@pytest.mark.slow
def test_instructions_are_counted_alike_twice_and_tell_where_int8_pays(
    a72: Arm64Target, a76: Arm64Target, tflite_artifact: Artifact, int8_artifact: Artifact
) -> None:
    costs = {}
    for target in (a72, a76):
        for artifact in (tflite_artifact, int8_artifact):
            with target.open(artifact) as session:
                counts = session.count()
                costs[target.name, artifact is int8_artifact] = counts.median
                assert max(counts.samples) / min(counts.samples) < 1.01
                assert counts.artifact_sha256 == artifact.sha256
    with a72.open(int8_artifact) as session:
        second = session.count().median
    assert abs(second / costs["arm64:cortex-a72", True] - 1) < 0.01
    saved = {name: costs[name, True] / costs[name, False] for name in ("arm64:cortex-a72", "arm64:cortex-a76")}
    assert saved["arm64:cortex-a76"] < saved["arm64:cortex-a72"], "only the A76 multiplies bytes in one instruction"


@pytest.mark.slow
def test_twice_the_work_is_twice_the_instructions(a72: Arm64Target, onnx_artifact: Artifact) -> None:
    with a72.open(onnx_artifact) as session:
        one, eight = session.count(batch=8).median, session.count(batch=16).median
    assert 1.6 < eight / one < 2.1


@pytest.mark.slow
def test_it_has_no_latency_and_says_what_it_is(a72: Arm64Target, onnx_artifact: Artifact) -> None:
    with a72.open(onnx_artifact) as session:
        with pytest.raises(RunFailed, match="no latency"):
            session.time(TimingPlan())
        assert (session.facts.cost, session.facts.simulated) == ("instructions", True)
        assert (session.facts.target, session.facts.device) == ("arm64:cortex-a72", "QEMU cortex-a72")


def test_an_unknown_processor_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownTarget, match="did you mean cortex-a76"):
        catalog.get("arm64:cortex-a75")


def test_without_the_emulator_the_fix_is_told(tmp_path: Path) -> None:
    program = "from targets import catalog; state = catalog.get('arm64:cortex-a72').probe(); print(state.ok, state.fix)"
    environment = os.environ | {"PATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False apt-get install qemu-user mmdebstrap gcc libc6-dev"


def test_what_fails_to_build_leaves_nothing_and_is_built_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path)

    def fails(part: Path) -> None:
        (part / "half").write_text("")
        cache.run_program(["sh", "-c", "echo no space left >&2; exit 1"], "mmdebstrap")

    with pytest.raises(TargetUnavailable, match="mmdebstrap failed: no space left"):
        cache.cached("arm64/root", "words", fails)
    assert [path.name for path in (tmp_path / "arm64").iterdir()] == ["root.lock"]
    built = []
    for _ in range(2):
        assert cache.cached("arm64/root", "words", lambda part: built.append((part / "whole").write_text(""))).is_dir()
    assert len(built) == 1
    assert cache.cached("arm64/root", "other words", lambda part: built.append(0)) != cache.cached(
        "arm64/root", "words", print
    )
