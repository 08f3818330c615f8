"""Signals end the program also while a runtime computes and never returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolchain.core import interrupt

ENDLESS = """
import sys
import onnxruntime
from toolchain.core import interrupt

interrupt.GRACE_SECONDS = 0.2
with interrupt.heard():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    print("runs", flush=True)
    session.run(None, {})
"""


def endless(path: Path) -> Path:
    """Write a model whose loop ends after 2**62 rounds."""
    scalar, flag = (
        helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", TensorProto.BOOL))
    )
    numbers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("x", "y", "end")]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["x"], ["y"])],
        "body",
        [scalar, flag, numbers[0]],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), numbers[1]],
    )
    constants = [
        helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("start", TensorProto.FLOAT, [], [1.0]),
    ]
    loop = helper.make_node("Loop", ["rounds", "yes", "start"], ["end"], body=body)
    graph = helper.make_graph([loop], "endless", [], [numbers[2]], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_whose_model_never_ends(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS, str(endless(tmp_path / "loop.onnx"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "runs\n"
        time.sleep(0.2)
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (130, "\nglyphpress: interrupted inside a call of a runtime that did not return\n")


def test_signals_that_are_seen_in_time_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.2)
    with interrupt.heard():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                _terminated_while_held()
        time.sleep(0.5)


def _terminated_while_held() -> None:
    with interrupt.held():
        # Two of them at once call a handler once or twice.
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
