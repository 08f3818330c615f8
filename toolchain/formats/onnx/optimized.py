"""The graph that ONNX Runtime makes of a file before it runs it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from targets.artifact import Artifact
from targets.errors import RunFailed
from targets.host.stderr import quiet_stderr
from targets.onnxruntime.cpu import OrtCpu
from targets.onnxruntime.operators import numbered
from targets.onnxruntime.protobuf import without_weights
from toolchain.formats.onnx.write import write_model

if TYPE_CHECKING:
    from onnx import GraphProto


def optimized_graph(artifact: Artifact) -> GraphProto:
    """Return the graph of an .onnx artifact after every optimization that `ort-cpu` does on this processor.

    `targets.onnxruntime.operators.origin` of a node's name tells what it was in the file. Raises RunFailed where ONNX
    Runtime refuses the file.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        options = OrtCpu().options(1)
        options.optimized_model_filepath = str(optimized)
        # External weights are written without another copy; nobody needs them in the layout of the kernels.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.disable_prepacking", "1")
        source = Path(folder, "numbered.onnx")
        write_model(numbered(onnx.load(artifact.path)), source)
        try:
            with quiet_stderr():
                onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's exceptions share no base.
            reason = " ".join(str(error).split())[:300]
            raise RunFailed(f"{artifact.path}: ONNX Runtime refuses it ({reason}); export it again") from error
        return without_weights(optimized).graph
