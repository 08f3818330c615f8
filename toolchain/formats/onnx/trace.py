"""What the layers of an ONNX file give out, in ONNX Runtime without graph optimizations.

So QuantizeLinear and DequantizeLinear do what they say and everything between them is float: what a QDQ file means. The
integer kernels that an optimized session takes instead differ from it by roundings.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.host.runtime_session import TensorCodec
from targets.onnxruntime.cpu import OrtReference, batch_size
from targets.onnxruntime.protobuf import append, without_weights
from toolchain.core.errors import StageError
from toolchain.formats.onnx.file import write_model
from toolchain.formats.onnx.layers import onnx_graph
from toolchain.formats.trace import Values, rounded

if TYPE_CHECKING:
    from onnx import ModelProto

_INTEGERS = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")


class OnnxTrace:
    """See `toolchain.formats.trace.Trace`."""

    def __init__(self, artifact: Artifact) -> None:
        """Read the file."""
        self.artifact = artifact
        self.graph = onnx_graph(without_weights(artifact.path))

    @property
    def fixed(self) -> int:
        """Return the batch that the file fixes, 0 where any is taken."""
        return max(self.artifact.inputs[0].shape[0], 0)

    @property
    def batch(self) -> int:
        """Return how many images are given at once."""
        return self.fixed or batch_size(self.artifact.path)

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the results of an inference."""
        return self._run(self._whole, pixels, {})

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the results of each layer behind exact ones."""
        given = rounded(self.graph, exact)
        return self._run(self._alone, pixels, {_fed(name): given[name] for name in self._cut})

    @property
    def _cut(self) -> list[str]:
        return [layer.result for layer in self.graph.layers if layer.result not in self.graph.outputs]

    @cached_property
    def _whole(self) -> Any:
        return self._session({})

    @cached_property
    def _alone(self) -> Any:
        """A session in which every operator that reads a layer's result reads an input of the graph in its place."""
        fed: dict[str, str] = {}
        for layer in self.graph.layers:
            if layer.result not in self.graph.outputs:
                fed |= dict.fromkeys((layer.result, *layer.copies), _fed(layer.result))
        return self._session(fed)

    def _dtype(self, tensor: str) -> int:
        """Return the ONNX type of a layer's result."""
        import onnx

        if self.graph.makers[tensor].kind in _INTEGERS:
            dtype = np.dtype(self.graph.ports[tensor].spec.dtype)
            return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
        return int(onnx.TensorProto.FLOAT)

    def _session(self, fed: dict[str, str]) -> Any:
        """Return a session that gives the layers' results; fed: tensors, and the inputs to read in their place."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder, "told.onnx")
            write_model(self._told(fed), told)
            try:
                options = OrtReference().options(1)
                # It would keep room for the expanded weights of all layers, where those of one are there at a time.
                options.enable_cpu_mem_arena = False
                return onnxruntime.InferenceSession(told, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                said = " ".join(str(error).split())[:300]
                raise StageError(f"{self.artifact.path.name}: ONNX Runtime cannot show its layers ({said})") from error

    def _told(self, fed: dict[str, str]) -> ModelProto:
        import onnx

        model = onnx.load(self.artifact.path)
        there = {one.name for one in model.graph.output}
        for name in dict.fromkeys(layer.result for layer in self.graph.layers):
            if name not in there:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        for node in model.graph.node:
            node.input[:] = [fed.get(name, name) for name in node.input]
        for name in self._cut if fed else ():
            kind = self._dtype(name)
            model.graph.input.append(onnx.helper.make_tensor_value_info(_fed(name), kind, None))
        return model

    def _run(self, session: Any, pixels: NDArray[Any], fed: Values) -> Values:
        source, ports = self.artifact.inputs[0], self.graph.ports
        inputs: dict[str, Any] = {source.name: TensorCodec(source).encode(pixels)}
        for given in session.get_inputs():
            if given.name != source.name:
                port = ports.get(given.name.removesuffix(_SUFFIX))
                values = fed[given.name]
                inputs[given.name] = port.encode(values) if port and given.type != "tensor(float)" else values
        results = list(dict.fromkeys(layer.result for layer in self.graph.layers))
        seen = dict(zip(results, session.run(results, inputs), strict=True))
        return {layer.name: self._decoded(layer.result, seen[layer.result]) for layer in self.graph.layers}

    def _decoded(self, tensor: str, values: NDArray[Any]) -> NDArray[np.float32]:
        port = self.graph.ports.get(tensor)
        if values.dtype.kind == "f" or port is None:
            return values.astype(np.float32, copy=False)
        return port.decode(values)


_SUFFIX = "|exact"


def _fed(tensor: str) -> str:
    return tensor + _SUFFIX


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
