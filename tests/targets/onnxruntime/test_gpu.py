"""ONNX Runtime on GPUs: WebGPU runs on a software adapter, CUDA and TensorRT where this machine has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import Misplaced, RunFailed, TargetUnavailable, UnknownTarget
from targets.metadata import adopt
from targets.onnxruntime import gpu
from targets.onnxruntime.cpu import OrtCpu
from targets.onnxruntime.gpu import WEBGPU_PROVIDER, OrtCuda, OrtTensorRt, OrtWebGpu, cuda_device, missing_library
from targets.session import Session, TimingPlan
from tests.fixtures.drivers import CHROMIUM, SWIFTSHADER, drivers_that_say, library, manifest, needs_chromium
from tests.fixtures.small_models import glyphs, integer_net
from toolchain.formats.onnx.edit import edited
from toolchain.quantize.onnx_weights import expand_at_load

ROOT = Path(__file__).resolve().parents[3]
_STATE = OrtWebGpu(adapter="software").probe()
needs_adapter = pytest.mark.skipif(not _STATE.ok, reason=f"no software adapter ({_STATE.reason}): WebGPU NOT checked")


@pytest.fixture(scope="module")
def opened(trained: Callable[[Format], Artifact]) -> Iterator[Session]:
    """Opened once: its shaders take seconds to compile for a processor."""
    with OrtWebGpu(adapter="software").open(trained("onnx")) as session:
        yield session


@needs_adapter
@pytest.mark.slow
def test_answers_are_those_of_the_cpu(opened: Session, handwriting: np.ndarray) -> None:
    with OrtCpu().open(opened.artifact) as cpu:
        np.testing.assert_allclose(opened.run(handwriting), cpu.run(handwriting), atol=1e-4)


@needs_adapter
def test_every_node_is_on_webgpu_and_the_adapter_is_named(opened: Session) -> None:
    facts = opened.facts
    assert facts.target == "ort-webgpu,adapter=software"
    assert list(facts.placement) == [WEBGPU_PROVIDER]
    assert facts.placement[WEBGPU_PROVIDER] >= len(onnx.load(opened.artifact.path).graph.node)
    assert (facts.device_type, facts.cost, facts.simulated, facts.precision) == ("software", "outputs", True, "float32")
    assert "SwiftShader" in facts.device
    assert "webgpu" in facts.version


@needs_adapter
def test_a_software_adapter_has_no_latency(opened: Session) -> None:
    with pytest.raises(RunFailed, match=r"simulated on SwiftShader.*no latency"):
        opened.time(TimingPlan())


@needs_adapter
@pytest.mark.parametrize("copies", ["with", "without"])
def test_what_a_gpu_would_be_timed_by_waits_for_the_logits(onnx_artifact: Artifact, copies: str) -> None:
    with OrtWebGpu(copies=copies).open(onnx_artifact) as session:
        call = session.prepared(64)
        took, whole = (min(seconds(what) for _ in range(5)) for what in (call, lambda: session.run(glyphs(64))))
    assert took > 0.5 * whole, "a call that only queues its commands returns in a hundredth of this"


def seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


@needs_adapter
def test_int8_arithmetic_is_refused_with_nodes_and_advice(tmp_path: Path, onnx_artifact: Artifact) -> None:
    dynamic = tmp_path / "dynamic.onnx"
    quantize_dynamic(onnx_artifact.path, dynamic, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    facts = {"preprocess": onnx_artifact.preprocess, "classes": onnx_artifact.classes}
    refused = {
        integer_net(tmp_path / "qdq.onnx"): "QuantizeLinear",
        dynamic: "1 DynamicQuantizeLinear, 1 MatMulInteger",
    }
    for path, nodes in refused.items():
        with pytest.raises(Misplaced, match=f"would run on CPUExecutionProvider.*{nodes}.*weights alone are int8"):
            OrtWebGpu().open(adopt(path, **facts))


@needs_adapter
def test_the_advice_is_true(tmp_path: Path, onnx_artifact: Artifact) -> None:
    path = tmp_path / "weights.onnx"
    onnx.save(edited(onnx.load(onnx_artifact.path), expand_at_load), path)
    stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    weights = adopt(path, preprocess=onnx_artifact.preprocess, classes=onnx_artifact.classes)
    with OrtWebGpu().open(weights) as session, OrtCpu().open(weights) as cpu:
        np.testing.assert_allclose(session.run(glyphs(5)), cpu.run(glyphs(5)), atol=1e-4)
        assert list(session.facts.placement) == [WEBGPU_PROVIDER]


@pytest.mark.parametrize(
    ("word", "environment", "reason"),
    [
        ("ort-webgpu", {"VK_DRIVER_FILES": "/nowhere.json"}, "none of 1 Vulkan drivers has a device"),
        pytest.param(
            "ort-webgpu,adapter=gpu",
            {"VK_DRIVER_FILES": SWIFTSHADER},
            "the only Vulkan device is Swift",
            marks=needs_chromium,
        ),
    ],
)
def test_an_unavailable_adapter_is_one_line(
    monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact, word: str, environment: dict[str, str], reason: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    target = catalog.get(word)
    state = target.probe()
    assert not state.ok
    assert state.reason.startswith(reason)
    assert state.fix
    with pytest.raises(TargetUnavailable, match=reason) as caught:
        target.open(onnx_artifact)
    assert str(caught.value) == f"{state.reason}; {state.fix}"


def test_a_missing_plugin_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", None)
    state = OrtWebGpu().probe()
    assert not state.ok
    assert "pip install 'glyphpress[webgpu]'" in state.fix


def test_a_setting_that_is_not_known_raises() -> None:
    with pytest.raises(UnknownTarget, match=r"adapter=auto\|gpu\|software"):
        catalog.get("ort-webgpu,adapter=vulkan")
    with pytest.raises(UnknownTarget, match=r"adapter=auto\|gpu\|software"):
        OrtWebGpu(adapter="vulkan")


def alone(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has opened no adapter yet."""
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def opening(word: str, artifact: Artifact) -> str:
    """Return a program that opens a file on a target and answers one image."""
    return f"""
import numpy as np
from pathlib import Path
from targets import catalog
from targets.metadata import adopt
from targets.preprocess import Preprocess
own = adopt(Path({str(artifact.path)!r}), preprocess=Preprocess(), classes=tuple('0123456789'))
with catalog.get({word!r}).open(own) as session:
    session.run(np.zeros((1, 28, 28), np.uint8))
"""


@needs_adapter
@pytest.mark.parametrize("word", ["ort-webgpu", "litert-gpu"])
def test_a_process_that_opens_its_first_file_prints_nothing(word: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue("onnx_artifact" if word.startswith("ort") else "tflite_artifact")
    done = alone(opening(word, model))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_adapter
@pytest.mark.parametrize("word", ["ort-webgpu", "litert-gpu"])
def test_a_gpu_whose_driver_webgpu_refuses_is_not_replaced_by_software(
    word: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Dawn does replace it: seen with this driver and SwiftShader side by side."""
    model = request.getfixturevalue("onnx_artifact" if word.startswith("ort") else "tflite_artifact")
    mock = manifest(tmp_path / "mock.json", CHROMIUM / "libVkICD_mock_icd.so")
    answers = {mock: [("Outdated GPU", "discrete")], SWIFTSHADER: [("SwiftShader", "cpu")]}
    program = drivers_that_say(answers, tmp_path / "drivers.py")
    patched = f"from targets.host import vulkan\nvulkan.__file__ = {str(program)!r}\n{opening(word, model)}"
    done = alone(patched, VK_DRIVER_FILES=os.pathsep.join(answers))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("targets.errors.TargetUnavailable")
    assert "driver" in last


@needs_adapter
def test_the_command_labels_what_is_simulated_and_exits_4_without_an_adapter(
    glyphpress: Callable[..., object], monkeypatch: pytest.MonkeyPatch, trained: Callable[[Format], Artifact]
) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    done = glyphpress("profile", trained("onnx").path, "--target", "ort-webgpu")
    assert done.code == 4
    assert "none of 1 Vulkan drivers has a device; install" in done.err
    assert not done.out


TARGETS = [OrtCuda(), OrtTensorRt()]
BUILT_IN = [target for target in TARGETS if target.provider in onnxruntime.get_available_providers()]
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
        monkeypatch.setattr(gpu, "DRIVER", str(library(tmp_path / f"cuda{code}.so", DRIVER % {"init": code})))

    return play


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu does on a machine without GPU: the providers are listed, and sessions are the CPU's."""
    names = [target.provider for target in TARGETS]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])


@pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA: what is said without it is NOT checked")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_provider_that_is_not_built_in_is_the_reason(target: OrtCuda, onnx_artifact: Artifact) -> None:
    state = target.probe()
    assert (state.ok, state.reason) == (False, f"this onnxruntime has no {target.provider}")
    assert "pip uninstall onnxruntime" in state.fix
    with pytest.raises(TargetUnavailable, match=state.reason):
        target.open(onnx_artifact)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
class TestListedButNotThere:
    """What `get_available_providers` promises is not believed."""

    def test_no_driver(self, target: OrtCuda, monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact) -> None:
        monkeypatch.setattr(gpu, "DRIVER", "libcuda.so.none")
        assert target.probe().reason == "there is no NVIDIA driver (libcuda.so.none)"
        with pytest.raises(TargetUnavailable, match="no NVIDIA driver"):
            target.open(onnx_artifact)

    def test_no_device(self, target: OrtCuda, driver: Callable[[int], None]) -> None:
        driver(100)
        assert target.probe().reason == "NVIDIA's driver has no device (no CUDA-capable device)"

    @pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA's library: its absence is NOT checked")
    def test_no_library(self, target: OrtCuda, driver: Callable[[int], None]) -> None:
        driver(0)
        state = target.probe()
        assert not state.ok
        assert f"{target.library}, which is not here" in state.reason

    @pytest.mark.filterwarnings("ignore:Specified provider")
    @pytest.mark.skipif(bool(BUILT_IN), reason="this onnxruntime has CUDA: silence about its absence is NOT checked")
    def test_a_session_that_is_silently_the_cpus_is_refused(
        self, target: OrtCuda, driver: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact
    ) -> None:
        driver(0)
        monkeypatch.setattr(gpu, "missing_library", lambda *_: "")
        with pytest.raises(TargetUnavailable, match=f"{target.provider} is listed but does not start") as caught:
            target.open(onnx_artifact)
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
