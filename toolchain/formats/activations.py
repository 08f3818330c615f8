"""What the tensors inside a file hold while it reads images, one image at a time, in the runtime of its format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.sample import CalibrationSet
from targets.artifact import Artifact
from targets.onnxruntime.protobuf import append, without_weights

Values = dict[str, NDArray[np.float32]]
"""What each tensor held while one image was read, in real numbers."""


def feeds(artifact: Artifact, images: CalibrationSet) -> NDArray[np.float32]:
    """Return float32 [N, batch, ...]: what the file is fed with for each image, which fills a batch that is fixed."""
    batch, *rest = artifact.inputs[0].shape
    pixels = artifact.preprocess.apply(images.images).reshape(-1, 1, *rest)
    return np.repeat(pixels, max(1, batch), axis=1)


def onnx_activations(path: Path, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the float tensors `names` of an ONNX file, which may be its input, for each of `fed`."""
    import onnx
    import onnxruntime

    graph = without_weights(path).graph
    source = graph.input[0].name
    inner = [name for name in names if name != source]
    there = {output.name for output in graph.output}
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner if name not in there
    ]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder) / "watched.onnx"
        shutil.copyfile(path, watched)
        append(watched, onnx.ModelProto(graph=onnx.GraphProto(output=outputs)))
        session = onnxruntime.InferenceSession(watched, options, providers=["CPUExecutionProvider"])
    for batch in fed:
        held = dict(zip(inner, session.run(inner, {source: batch}), strict=True)) if inner else {}
        yield held | ({source: batch} if source in names else {})


def tflite_activations(source: Path | bytes, names: Sequence[str], fed: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the tensors `names` of a TFLite file for each of `fed`; integers as the numbers they stand for."""
    interpreter = open_bare(source)
    (given,) = interpreter.get_input_details()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    for batch in fed:
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        yield {name: _real(interpreter.get_tensor(details[name]["index"]), details[name]) for name in names}


def open_bare(source: Path | bytes) -> Any:
    """Return LiteRT's interpreter of a file or its bytes, on its own kernels: a delegate hides the tensors inside."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        **({"model_path": str(source)} if isinstance(source, Path) else {"model_content": source}),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def _real(stored: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    quantization = detail["quantization_parameters"]
    if not quantization["scales"].size:
        return stored.astype(np.float32, copy=False)
    real: NDArray[np.float32] = (stored.astype(np.float32) - quantization["zero_points"]) * quantization["scales"]
    return real
