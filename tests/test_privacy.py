"""Nothing that was not asked for leaves the machine or is written where nobody asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SESSION = """
import numpy as np
from onnx import TensorProto, helper
model = helper.make_model(
    helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=8,
)
import onnxruntime
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {"x": np.array([-1.0], dtype=np.float32)})[0] == 0
"""
OPENVINO = """
import openvino
import sys
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""


@pytest.mark.parametrize("first", ["toolchain", "targets", "targets.agent.serve", "toolchain.checkpoint.onnx_run"])
@pytest.mark.parametrize("program", [SESSION, OPENVINO], ids=["row29-onnxruntime", "row29-openvino"])
def test_no_runtime_reports_its_use(program: str, first: str, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for place in places.values():
        place.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {name: str(place) for name, place in places.items()} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import {first}\n{program}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path not in places.values()]
    assert left == []
