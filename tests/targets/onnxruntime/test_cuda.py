"""CUDA and TensorRT: what is missing is named, and what is the CPU's is never taken for the GPU's.

The driver is played by a few lines of C where there is none; ONNX Runtime is the real one throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from targets import catalog
from targets.artifact import Artifact
from targets.errors import TargetUnavailable
from targets.onnxruntime import cuda
from targets.onnxruntime.cpu import OrtCpu
from targets.onnxruntime.cuda import OrtCuda, OrtTensorRt, cuda_device, missing_library
from targets.session import TimingPlan
from tests.fixtures.drivers import library
from tests.fixtures.small_models import glyphs

TARGETS = [OrtCuda(), OrtTensorRt()]
BUILT_IN = [place for place in TARGETS if place.provider in onnxruntime.get_available_providers()]
DRIVER = """
int cuInit(unsigned flags) { return %(init)d; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) { __builtin_strcpy(name, "Pretended GPU"); return 0; }
int cuGetErrorString(int code, const char **text) { *text = code == 100 ? "no CUDA-capable device" : 0; return 0; }
"""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Play NVIDIA's driver, whose cuInit returns a code."""

    def play(code: int) -> None:
        monkeypatch.setattr(cuda, "DRIVER", str(library(tmp_path / f"cuda{code}.so", DRIVER % {"init": code})))

    return play


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu does on a machine without GPU: the providers are listed, and sessions are the CPU's."""
    names = [place.provider for place in TARGETS]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])


@pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA: what is said without it is NOT checked")
@pytest.mark.parametrize("place", TARGETS, ids=lambda place: place.name)
def test_a_provider_that_is_not_built_in_is_the_reason(place: OrtCuda, onnx_artifact: Artifact) -> None:
    state = place.probe()
    assert (state.ok, state.reason) == (False, f"this onnxruntime has no {place.provider}")
    assert "pip uninstall onnxruntime" in state.fix
    with pytest.raises(TargetUnavailable, match=state.reason):
        place.open(onnx_artifact)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("place", TARGETS, ids=lambda place: place.name)
class TestListedButNotThere:
    """What `get_available_providers` promises is not believed."""

    def test_no_driver(self, place: OrtCuda, monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact) -> None:
        monkeypatch.setattr(cuda, "DRIVER", "libcuda.so.none")
        assert place.probe().reason == "there is no NVIDIA driver (libcuda.so.none)"
        with pytest.raises(TargetUnavailable, match="no NVIDIA driver"):
            place.open(onnx_artifact)

    def test_no_device(self, place: OrtCuda, driver: Callable[[int], None]) -> None:
        driver(100)
        assert place.probe().reason == "NVIDIA's driver has no device (no CUDA-capable device)"

    @pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA's library: its absence is NOT checked")
    def test_no_library(self, place: OrtCuda, driver: Callable[[int], None]) -> None:
        driver(0)
        state = place.probe()
        assert not state.ok
        assert f"{place.library}, which is not here" in state.reason

    @pytest.mark.filterwarnings("ignore:Specified provider")
    @pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA: silence about its absence is NOT checked")
    def test_a_session_that_is_silently_the_cpus_is_refused(
        self, place: OrtCuda, driver: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact
    ) -> None:
        driver(0)
        monkeypatch.setattr(cuda, "missing_library", lambda *_: "")
        with pytest.raises(TargetUnavailable, match=f"{place.provider} is listed but does not start") as caught:
            place.open(onnx_artifact)
        assert "\n" not in str(caught.value)


def test_the_driver_names_its_device(driver: Callable[[int], None]) -> None:
    driver(0)
    assert cuda_device() == "Pretended GPU"


def test_an_error_without_a_text_is_a_number(driver: Callable[[int], None]) -> None:
    driver(999)
    with pytest.raises(TargetUnavailable, match=r"no device \(error 999\)"):
        cuda_device()


def test_the_library_that_a_provider_lacks_is_named(tmp_path: Path) -> None:
    import subprocess

    needed = library(tmp_path / "libneeded.so.7", "int needed(void) { return 0; }")
    provider = tmp_path / "provider.so"
    source = provider.with_suffix(".c")
    source.write_text("int needed(void);\nint start(void) { return needed(); }\n", encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", provider, source, "-L", tmp_path, "-l:libneeded.so.7"], check=True)
    needed.unlink()
    assert missing_library(provider) == "libneeded.so.7"
    assert missing_library(library(tmp_path / "whole.so", "int start(void) { return 0; }")) == ""


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_the_command_exits_4_with_the_reason(
    glyphpress: Callable[..., SimpleNamespace], onnx_artifact: Artifact, name: str
) -> None:
    state = catalog.get(name).probe()
    if state.ok:
        pytest.skip(f"{name} is here: its absence is NOT checked")
    done = glyphpress("profile", onnx_artifact.path, "--target", name)
    assert done.code == 4
    assert state.reason in done.err
    assert not done.out


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_a_gpu_answers_as_the_cpu_does_and_is_timed_with_and_without_copies(onnx_artifact: Artifact, name: str) -> None:
    state = catalog.get(name).probe()
    if not state.ok:
        pytest.skip(f"{name} is not here ({state.reason}): NOT checked")
    plan = TimingPlan(min_runs=200, min_seconds=0.2)
    with OrtCpu().open(onnx_artifact) as cpu:
        expected = cpu.run(glyphs(65))
    medians = {}
    for copies in ("with", "without"):
        with catalog.get(f"{name},copies={copies}").open(onnx_artifact) as session:
            np.testing.assert_allclose(session.run(glyphs(65)), expected, atol=1e-4)
            assert (session.facts.device_type, session.facts.device) == ("gpu", cuda_device())
            assert list(session.facts.placement) == [catalog.get(name).provider]
            medians[copies] = np.median(session.time(plan).samples_ns)
    assert medians["without"] < medians["with"]
