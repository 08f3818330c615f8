"""LiteRT's WebGPU accelerator, for real on a software adapter: answers, placement, what it refuses."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from targets.artifact import Artifact, Format
from targets.errors import Misplaced, RunFailed
from targets.litert import gpu
from targets.litert.cpu import LiteRtCpu
from targets.litert.gpu import ACCELERATOR, LiteRtGpu
from targets.session import TimingPlan
from tests.fixtures.small_models import artifact, glyphs

_STATE = LiteRtGpu(adapter="software").probe()
needs_adapter = pytest.mark.skipif(not _STATE.ok, reason=f"no software adapter ({_STATE.reason}): LiteRT NOT checked")


@needs_adapter
@pytest.mark.slow
def test_answers_are_those_of_the_cpu(trained: Callable[[Format], Artifact], handwriting: np.ndarray) -> None:
    model = trained("tflite")
    with LiteRtGpu().open(model) as session, LiteRtCpu().open(model) as cpu:
        np.testing.assert_allclose(session.run(handwriting), cpu.run(handwriting), atol=1e-4)


@needs_adapter
def test_every_operator_is_on_the_gpu_and_the_adapter_is_named(tflite_artifact: Artifact) -> None:
    with LiteRtGpu(adapter="software").open(tflite_artifact) as session:
        facts = session.facts
        with pytest.raises(RunFailed, match=r"simulated on SwiftShader.*no latency"):
            session.time(TimingPlan())
    operators = len(Interpreter(str(tflite_artifact.path))._get_ops_details())
    assert facts.placement == {ACCELERATOR: operators}
    assert (facts.device_type, facts.cost, facts.simulated, facts.precision) == ("software", "outputs", True, "float32")
    assert facts.target == "litert-gpu,adapter=software"
    assert "SwiftShader" in facts.device


@needs_adapter
def test_an_operator_that_the_gpu_lacks_is_named(tmp_path: Path) -> None:
    import litert_torch
    import torch

    class Turned(torch.nn.Module):
        """Ends in an operator that the accelerator does not have."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(784, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.linear(image.flatten(1))[:, torch.arange(9, -1, -1)]

    path = tmp_path / "turned.tflite"
    with contextlib.redirect_stdout(io.StringIO()):
        litert_torch.convert(Turned().eval(), (torch.zeros(1, 1, 28, 28),)).export(str(path))
    with pytest.raises(Misplaced, match=r"\d of \d operators would run on the CPU.*cannot run GATHER_ND") as caught:
        LiteRtGpu().open(artifact(path))
    assert "\n" not in str(caught.value)


@needs_adapter
def test_a_file_that_crashes_the_accelerator_leaves_this_process_alive(
    tflite_artifact: Artifact, tmp_path: Path
) -> None:
    from litert_quantizer import quantizer, recipe

    path = tmp_path / "weights.tflite"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        press = quantizer.Quantizer(str(tflite_artifact.path))
        press.load_quantization_recipe(recipe.weight_only_wi8_afp32())
        press.quantize().export_model(str(path))
    with pytest.raises(RunFailed, match=r"accelerator crashes on it \(SIGSEGV\); take litert-cpu"):
        LiteRtGpu().open(artifact(path))


@needs_adapter
def test_int8_files_are_answered_to_a_step(int8_artifact: Artifact) -> None:
    with LiteRtGpu().open(int8_artifact) as session, LiteRtCpu().open(int8_artifact) as cpu:
        steps = np.abs(session.run(glyphs(50)) - cpu.run(glyphs(50))) / session.sink.scale
    assert steps.max() < 1.5, "where a rounding falls the other way"


@needs_adapter
@pytest.mark.parametrize("copies", ["with", "without"])
def test_what_a_gpu_would_be_timed_by_waits_for_the_logits(trained: Callable[[Format], Artifact], copies: str) -> None:
    with LiteRtGpu(copies=copies).open(trained("tflite")) as session:
        call = session.prepared(1)
        took, whole = (min(seconds(what) for _ in range(10)) for what in (call, lambda: session.run(glyphs(1))))
    assert took > 0.5 * whole, "a call that only queues its commands returns in a hundredth of this"


def seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


@needs_adapter
def test_two_sessions_do_not_disturb_each_other(tflite_artifact: Artifact, int8_artifact: Artifact) -> None:
    with LiteRtGpu().open(tflite_artifact) as first:
        alone = first.run(glyphs(3))
        with LiteRtGpu().open(int8_artifact) as second:
            second.run(glyphs(3))
            np.testing.assert_array_equal(first.run(glyphs(3)), alone)
        np.testing.assert_array_equal(first.run(glyphs(3)), alone)


def test_a_wheel_without_the_accelerator_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_LIBRARY", "libLiteRtNoAccelerator.so")
    state = LiteRtGpu().probe()
    assert (state.ok, state.reason) == (False, "this ai-edge-litert comes without libLiteRtNoAccelerator.so")
    assert state.fix


def test_without_an_adapter_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    state = LiteRtGpu().probe()
    assert (state.ok, state.reason) == (False, "none of 1 Vulkan drivers has a device")
