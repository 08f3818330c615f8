"""Targets: runtimes, boards and emulators that run artifacts and measure the cost of an inference.

Importing this package, on a board too, turns off the usage reports of other packages before any of them is imported.
"""

import os
import sys

os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
# OpenVINO reports each import and has no variable that turns this off; without this package it reports nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
