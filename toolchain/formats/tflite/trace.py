"""What the layers of a TFLite file give out, in LiteRT's own kernels, which a delegate would hide."""

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
from toolchain.formats.tflite.layers import mapped, parsed, tflite_graph
from toolchain.formats.tflite.slim import packed, unpacked
from toolchain.formats.trace import Values, rounded


class TfliteTrace:
    """See `toolchain.formats.trace.Trace`."""

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
        """Return the results of an inference."""
        return self._run(self._whole, pixels, {})

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the results of each layer behind exact ones."""
        interpreter, places = self._alone
        given = rounded(self.graph, exact)
        return self._run(interpreter, pixels, {place: given[tensor] for tensor, place in places.items()})

    @cached_property
    def _whole(self) -> Any:
        return self._interpreter(self.artifact.path)

    @cached_property
    def _alone(self) -> tuple[Any, dict[str, int]]:
        """A file in which every operator that reads a layer's result reads an input in its place, and those inputs."""
        model = unpacked(self.content)
        graph, places = model.subgraphs[0], {}
        for tensor in dict.fromkeys(layer.result for layer in self.graph.layers):
            if tensor not in self.graph.outputs:
                twin = copy.copy(graph.tensors[int(tensor)])
                twin.name = b"exact " + tensor.encode()
                places[tensor] = len(graph.tensors)
                graph.tensors.append(twin)
        for operator in graph.operators:
            operator.inputs = [places.get(str(index), index) for index in operator.inputs]
        graph.inputs = [*graph.inputs, *places.values()]
        # A result that nobody reads any more would not be computed for certain.
        graph.outputs = [*graph.outputs, *map(int, places)]
        model.signatureDefs = None
        return self._interpreter(packed(model, len(self.content))), places

    def _interpreter(self, source: Path | bytes) -> Any:
        try:
            with quiet_stderr():
                interpreter = open_bare(source)
        except (ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise StageError(f"{self.artifact.path.name}: LiteRT cannot show its layers ({said})") from error
        return interpreter

    def _run(self, interpreter: Any, pixels: NDArray[Any], fed: dict[int, Any]) -> Values:
        source = interpreter.get_input_details()[0]
        for place, values in {source["index"]: pixels.reshape(source["shape"]), **fed}.items():
            interpreter.set_tensor(place, self._typed(interpreter, place, values))
        interpreter.invoke()
        return {
            layer.name: self._decoded(layer.result, interpreter.get_tensor(int(layer.result)))
            for layer in self.graph.layers
        }

    def _typed(self, interpreter: Any, place: int, values: NDArray[Any]) -> NDArray[Any]:
        details = next(one for one in interpreter.get_input_details() if one["index"] == place)
        if np.dtype(details["dtype"]).kind == "f" or values.dtype.kind != "f":
            return values.astype(details["dtype"])
        scale, zero = details["quantization"]
        limits = np.iinfo(details["dtype"])
        typed: NDArray[Any] = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])
        return typed

    def _decoded(self, tensor: str, values: NDArray[Any]) -> NDArray[np.float32]:
        port = self.graph.ports.get(tensor)
        return values.astype(np.float32) if port is None or values.dtype.kind == "f" else port.decode(values)


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
