"""The results of a TFLite file's layers, in LiteRT's own kernels: a delegate does not return inner tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.host.stderr import quiet_stderr
from toolchain.core.errors import StageError
from toolchain.formats.graph import Values, rounded
from toolchain.formats.tflite.layers import mapped, parsed, tflite_graph
from toolchain.formats.tflite.slim import packed, unpacked


class TfliteTrace:
    """See `toolchain.formats.graph.Trace`."""

    def __init__(self, artifact: Artifact) -> None:
        """Read the file."""
        self.artifact = artifact
        self.content = mapped(artifact.path)
        self.graph = tflite_graph(parsed(self.content))

    @property
    def fixed(self) -> int:
        """Return the batch of the file."""
        return self.artifact.inputs[0].shape[0]

    @property
    def batch(self) -> int:
        """Return the batch of the file."""
        return self.fixed

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the result of every layer when the file runs on `pixels`."""
        return self._run(self._whole, pixels, {})

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the result of every layer when those before it return `exact`."""
        interpreter, inputs = self._alone
        results = rounded(self.graph, exact)
        return self._run(interpreter, pixels, {index: results[tensor] for tensor, index in inputs.items()})

    @cached_property
    def _whole(self) -> Any:
        return self._interpreter(self.artifact.path)

    @cached_property
    def _alone(self) -> tuple[Any, dict[str, int]]:
        """An interpreter whose operators read inputs instead of layers' results; and result -> index of its input."""
        model = unpacked(self.content)
        graph, inputs = model.subgraphs[0], dict[str, int]()
        for tensor in dict.fromkeys(layer.result for layer in self.graph.layers):
            if tensor not in self.graph.outputs:
                exact_input = copy.copy(graph.tensors[int(tensor)])
                exact_input.name = b"exact " + tensor.encode()
                inputs[tensor] = len(graph.tensors)
                graph.tensors.append(exact_input)
        for operator in graph.operators:
            operator.inputs = [inputs.get(str(index), index) for index in operator.inputs]
        graph.inputs = [*graph.inputs, *inputs.values()]
        # LiteRT need not compute a result that nothing reads any more, unless it is an output.
        graph.outputs = [*graph.outputs, *map(int, inputs)]
        model.signatureDefs = None
        return self._interpreter(packed(model, len(self.content))), inputs

    def _interpreter(self, source: Path | bytes) -> Any:
        try:
            with quiet_stderr():
                interpreter = open_bare(source)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise StageError(f"{self.artifact.path.name}: LiteRT cannot show its layers ({reason})") from error
        return interpreter

    def _run(self, interpreter: Any, pixels: NDArray[Any], exact_inputs: dict[int, Any]) -> Values:
        source = interpreter.get_input_details()[0]
        for index, values in {source["index"]: pixels.reshape(source["shape"]), **exact_inputs}.items():
            interpreter.set_tensor(index, self._encoded(interpreter, index, values))
        interpreter.invoke()
        return {
            layer.name: self._decoded(layer.result, interpreter.get_tensor(int(layer.result)))
            for layer in self.graph.layers
        }

    def _encoded(self, interpreter: Any, index: int, values: NDArray[Any]) -> NDArray[Any]:
        """Return values in the dtype of an input: floats are quantized where it takes integers."""
        details = next(detail for detail in interpreter.get_input_details() if detail["index"] == index)
        if np.dtype(details["dtype"]).kind == "f" or values.dtype.kind != "f":
            return values.astype(details["dtype"])
        scale, zero = details["quantization"]
        limits = np.iinfo(details["dtype"])
        encoded: NDArray[Any] = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])
        return encoded

    def _decoded(self, tensor: str, values: NDArray[Any]) -> NDArray[np.float32]:
        codec = self.graph.codecs.get(tensor)
        return values.astype(np.float32) if codec is None or values.dtype.kind == "f" else codec.decode(values)


def tflite_activations(source: Path | bytes, names: Sequence[str], batches: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the tensors `names` of a TFLite file for each of `batches`; integers are dequantized."""
    interpreter = open_bare(source)
    (input_detail,) = interpreter.get_input_details()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    for batch in batches:
        interpreter.set_tensor(input_detail["index"], batch)
        interpreter.invoke()
        yield {name: _dequantized(interpreter.get_tensor(details[name]["index"]), details[name]) for name in names}


def open_bare(source: Path | bytes) -> Any:
    """Return an interpreter of a file or of its bytes without delegates, from which inner tensors can be read.

    Raises ValueError or RuntimeError where LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        **({"model_path": str(source)} if isinstance(source, Path) else {"model_content": source}),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def _dequantized(stored: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    quantization = detail["quantization_parameters"]
    if not quantization["scales"].size:
        return stored.astype(np.float32, copy=False)
    values: NDArray[np.float32] = (stored.astype(np.float32) - quantization["zero_points"]) * quantization["scales"]
    return values
