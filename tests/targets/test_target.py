"""What every registered target says of itself, whether it can run here or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from targets import catalog
from targets.errors import RunFailed, TargetUnavailable, UnknownTarget
from targets.host.local_target import operators
from targets.host.machine import machine_state
from targets.session import Cost
from targets.target import Target
from tests.fixtures.small_models import artifact, conv_net

BOARD = "ssh://pi@kitchen"
SET_UP = {BOARD, *(word for word in catalog.listed() if word.startswith("arm64:"))}


@pytest.fixture(params=[*catalog.listed(), "browser,device=webgpu", BOARD])
def target(request: pytest.FixtureRequest) -> Target:
    return catalog.get(request.param)


def test_it_derives_from_the_contract_and_says_in_a_line_what_it_is(target: Target) -> None:
    assert Target in type(target).__mro__
    assert 20 < len(target.summary) < 120
    assert target.formats <= {"onnx", "ort", "tflite"}
    assert target.formats


def test_only_a_board_is_on_another_host(target: Target) -> None:
    assert target.host == (BOARD if target.name == BOARD else "")


def test_its_cost_is_known_before_anything_is_opened(target: Target) -> None:
    try:
        assert target.cost in get_args(Cost)
    except TargetUnavailable:
        assert not target.probe().ok, "only a device that is missing may leave the cost open"


def test_the_flags_of_its_processor_are_this_machines_or_those_of_the_emulated_one(target: Target) -> None:
    if target.host:
        pytest.skip("a board has to be asked: tests of ssh do")
    flags = set(target.isa())
    assert "asimd" in flags if target.members else flags in (set(), set(machine_state().get("isa", ())))


def test_what_needs_no_setting_up_says_so(target: Target) -> None:
    if target.name in SET_UP:
        assert type(target).set_up is not Target.set_up
        return
    with pytest.raises(UnknownTarget, match=f"{target.name} needs no setup; ") as caught:
        target.set_up()
    assert "\n" not in str(caught.value)


def test_a_target_of_this_machine_pins_this_process(target: Target) -> None:
    if target.host:
        pytest.skip("a board pins there: tests of ssh do")
    usable = os.sched_getaffinity(0)
    try:
        target.pin({min(usable)})
        assert os.sched_getaffinity(0) == {min(usable)}
    finally:
        os.sched_setaffinity(0, usable)
    with pytest.raises(RunFailed, match="4095"):
        target.pin({4095})


def test_operators_are_told_or_the_targets_that_tell_them_are_named(target: Target, tmp_path: Path) -> None:
    if target.has_profiler:
        assert type(target).operators is not Target.operators
        return
    model = artifact(conv_net(tmp_path / "net.onnx"))
    with pytest.raises(RunFailed, match=r"does not report the time of its operators; take ort-cpu or ") as caught:
        operators(model, target)
    assert "\n" not in str(caught.value)
