"""The results of an ONNX file's layers, in ONNX Runtime without graph optimizations.

So every QuantizeLinear and DequantizeLinear is computed as the file states it, and all between them in float. The
integer kernels of an optimized session differ from that by rounding errors.
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
from toolchain.formats.graph import Values, rounded
from toolchain.formats.onnx.file import write_model
from toolchain.formats.onnx.layers import onnx_graph

if TYPE_CHECKING:
    from onnx import ModelProto

_INTEGERS = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")


class OnnxTrace:
    """See `toolchain.formats.graph.Trace`."""

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
        """Return how many images to run at once."""
        return self.fixed or batch_size(self.artifact.path)

    def whole(self, pixels: NDArray[Any]) -> Values:
        """Return the result of every layer when the file runs on `pixels`."""
        return self._run(self._whole, pixels, {})

    def alone(self, pixels: NDArray[Any], exact: Values) -> Values:
        """Return the result of every layer when those before it return `exact`."""
        results = rounded(self.graph, exact)
        return self._run(self._alone, pixels, {_exact_input(name): results[name] for name in self._inner_results})

    @property
    def _inner_results(self) -> list[str]:
        """The results of layers that are no outputs of the file."""
        return [layer.result for layer in self.graph.layers if layer.result not in self.graph.outputs]

    @cached_property
    def _whole(self) -> Any:
        return self._session({})

    @cached_property
    def _alone(self) -> Any:
        """A session in which operators read inputs of the graph instead of layers' results."""
        replaced: dict[str, str] = {}
        for layer in self.graph.layers:
            if layer.result not in self.graph.outputs:
                replaced |= dict.fromkeys((layer.result, *layer.copies), _exact_input(layer.result))
        return self._session(replaced)

    def _dtype(self, tensor: str) -> int:
        """Return the ONNX type of a layer's result."""
        import onnx

        if self.graph.makers[tensor].kind in _INTEGERS:
            dtype = np.dtype(self.graph.codecs[tensor].spec.dtype)
            return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
        return int(onnx.TensorProto.FLOAT)

    def _session(self, replaced: dict[str, str]) -> Any:
        """Return a session that returns the layers' results; replaced: tensor -> the input to read instead.

        Raises StageError where ONNX Runtime refuses it.
        """
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "traced.onnx")
            write_model(self._with_results(replaced), source)
            try:
                options = OrtReference().options(1)
                # The arena would keep memory for the expanded weights of all layers, not of one at a time.
                options.enable_cpu_mem_arena = False
                return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                cause = " ".join(str(error).split())[:300]
                raise StageError(f"{self.artifact.path.name}: ONNX Runtime cannot show its layers ({cause})") from error

    def _with_results(self, replaced: dict[str, str]) -> ModelProto:
        """Return the model with every layer's result as an output, and inputs in place of the tensors `replaced`."""
        import onnx

        model = onnx.load(self.artifact.path)
        output_names = {output.name for output in model.graph.output}
        for name in dict.fromkeys(layer.result for layer in self.graph.layers):
            if name not in output_names:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        for node in model.graph.node:
            node.input[:] = [replaced.get(name, name) for name in node.input]
        for name in self._inner_results if replaced else ():
            value_info = onnx.helper.make_tensor_value_info(_exact_input(name), self._dtype(name), None)
            model.graph.input.append(value_info)
        return model

    def _run(self, session: Any, pixels: NDArray[Any], exact_inputs: Values) -> Values:
        source, codecs = self.artifact.inputs[0], self.graph.codecs
        inputs: dict[str, Any] = {source.name: TensorCodec(source).encode(pixels)}
        for declared in session.get_inputs():
            if declared.name != source.name:
                codec = codecs.get(declared.name.removesuffix(_SUFFIX))
                values = exact_inputs[declared.name]
                is_float = declared.type == "tensor(float)"
                inputs[declared.name] = codec.encode(values) if codec and not is_float else values
        names = list(dict.fromkeys(layer.result for layer in self.graph.layers))
        results = dict(zip(names, session.run(names, inputs), strict=True))
        return {layer.name: self._decoded(layer.result, results[layer.result]) for layer in self.graph.layers}

    def _decoded(self, tensor: str, values: NDArray[Any]) -> NDArray[np.float32]:
        codec = self.graph.codecs.get(tensor)
        if values.dtype.kind == "f" or codec is None:
            return values.astype(np.float32, copy=False)
        return codec.decode(values)


_SUFFIX = "|exact"


def _exact_input(tensor: str) -> str:
    """Return the name of the input that replaces a layer's result."""
    return tensor + _SUFFIX


def onnx_activations(path: Path, names: Sequence[str], batches: NDArray[np.float32]) -> Iterator[Values]:
    """Yield the float tensors `names` of an ONNX file, its input too where asked for, for each of `batches`."""
    import onnx
    import onnxruntime

    graph = without_weights(path).graph
    source = graph.input[0].name
    inner = [name for name in names if name != source]
    output_names = {output.name for output in graph.output}
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in output_names
    ]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        source_path = Path(folder) / "traced.onnx"
        shutil.copyfile(path, source_path)
        append(source_path, onnx.ModelProto(graph=onnx.GraphProto(output=outputs)))
        session = onnxruntime.InferenceSession(source_path, options, providers=["CPUExecutionProvider"])
    for batch in batches:
        activations = dict(zip(inner, session.run(inner, {source: batch}), strict=True)) if inner else {}
        yield activations | ({source: batch} if source in names else {})
