"""Weights of 7 bits or 8: by what the target's kernels can add without saturating."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.artifact import Artifact, Format
from targets.catalog import isa
from targets.host.machine import machine_state, saturates
from targets.session import TimingPlan
from tests.conftest import Finished
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest, PressTarget
from toolchain.core.context import RunContext
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import Policy
from toolchain.quantize import FULL_RANGE
from toolchain.recipe import shipped


@pytest.mark.parametrize(
    ("word", "reduced"),
    [
        (None, True),
        ("arm64:cortex-a53", False),
        ("raspberry-pi-4", False),
        ("kiosk-x86", True),
        ("browser", True),
    ],
)
def test_weights_keep_to_7_bits_where_products_may_saturate_or_nobody_knows(word: str | None, reduced: bool) -> None:
    assert PressTarget(word, ("onnx",)).saturates is reduced


def test_a_target_of_this_machine_is_judged_by_its_processor() -> None:
    flags = set(machine_state()["isa"])
    vnni = bool(flags & {"avx_vnni", "avx512_vnni", "amx_int8"})
    assert saturates(isa("ort-cpu")) == saturates(isa("ort-cpu,graph=basic"))
    assert saturates(isa("ort-cpu")) == (platform.machine() == "x86_64" and not vnni)


@pytest.mark.slow
@pytest.mark.usefixtures("shared_floats")
@pytest.mark.parametrize(("features", "wide"), [(["avx2", "avx_vnni"], True), (["avx2", "fma"], False)])
def test_a_press_takes_the_bits_that_its_target_allows(
    features: list[str], wide: bool, checkpoint: Path, tmp_path: Path
) -> None:
    device = tmp_path / "mine.toml"
    device.write_text(f'reach = "ort-cpu"\nfeatures = {features}\n'.replace("'", '"'))
    request = PressRequest(
        checkpoint=str(checkpoint),
        data="builtin:digits",
        recipes=(shipped()["static-int8"],),
        formats=("onnx",),
        target=str(device),
        policy=Policy(drop=DropLimit(max=0.02, confidence=0.95)),
        plan=TimingPlan(warmup=1, min_runs=5, min_seconds=0.0, inner=1),
    )
    report = press(request, tmp_path / "out", RunContext(threads=1))
    (made,) = (row for row in report.rows if row.recipe == "static-int8")
    assert (FULL_RANGE in made.notes) is wide


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8"])
def test_full_range_is_refused_for_a_tflite_which_has_no_other_range(
    scheme: str, floats: dict[Format, Artifact], glyphpress: Callable[..., Finished], tmp_path: Path
) -> None:
    arguments = ("--data", "builtin:digits", "--scheme", scheme, "--full-range", "-o", tmp_path / "made.tflite")
    done = glyphpress("quantize", floats["tflite"].path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert "--full-range is for .onnx files" in done.err
    assert "leave it out" in done.err
    assert not list(tmp_path.iterdir())
