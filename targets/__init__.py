"""Places where an artifact runs: what is there, what it answers and what an inference costs there.

Nothing leaves the machine that was not asked for: whatever imports this package, on a board too, turns off what other
packages report about their use before any of them is imported.
"""

import os
import sys

os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
# OpenVINO reports every import of it, and has no variable that forbids it; without this package it reports nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
