"""Torch's files and .safetensors, taken apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import file_sha256
from targets.foreign import first_line
from toolchain import models
from toolchain.checkpoint.kinds import Kind
from toolchain.checkpoint.pickled import refuse_quantized
from toolchain.checkpoint.source import build_from, import_source, parse_source
from toolchain.checkpoint.state import Fitted, find_state, fit_state, modules_in, preferred, tensors_in
from toolchain.checkpoint.stored import METADATA_KEY, stored_facts
from toolchain.checkpoint.torch_files import read_pickle, read_program, read_torchscript, read_weights
from toolchain.errors import CheckpointError
from toolchain.inspection.facts import Inspection, Layer, StoredTensor, largest_first

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

_PLAIN = (str, int, float, bool, type(None))


def inspect_torch(
    path: Path, kind: Kind, model: str | None, *, trust_pickle: bool, weights: str | None = None
) -> Inspection:
    """Return what a torch or .safetensors file is; layers and MACs where there is a module to run."""
    layers: list[Layer] = []
    facts: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if kind == "exported":
        program, extra = read_program(path, trusted=trust_pickle)
        facts = json.loads(extra.get(METADATA_KEY, "{}"))
        state = dict(program.state_dict)
        layers = _program_layers(program)
    elif kind == "torchscript":
        state = read_torchscript(path, trusted=trust_pickle).state_dict()
        notes = ("TorchScript keeps no list of layers",)
    else:
        fitted, facts, module = _weights(path, kind, model, trust_pickle, weights)
        state, notes = fitted.tensors, fitted.notes
        if module is None:
            notes = (*notes, "weights alone: say whose they are with --model to count layers and MACs")
        else:
            layers = module_layers(module, str(path))
    tensors = [
        StoredTensor(name, str(t.dtype).removeprefix("torch."), tuple(t.shape), t.numel() * t.element_size())
        for name, t in state.items()
    ]
    return Inspection(
        path=path,
        kind=kind,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        parameters=sum(_parameters(name, tensor) for name, tensor in state.items()),
        tensors=largest_first(tensors),
        layers=tuple(layers),
        macs=sum(layer.macs for layer in layers) if layers else None,
        metadata=facts,
        notes=notes,
    )


def _weights(
    path: Path, kind: Kind, model: str | None, trust_pickle: bool, weights: str | None
) -> tuple[Fitted, dict[str, Any], nn.Module | None]:
    from torch import nn

    source = parse_source(model) if model and model not in models.names() else None
    if kind == "safetensors":
        payload, facts = _safetensors(path)
    else:
        payload = read_pickle(path, import_source(source) if source else None) if trust_pickle else read_weights(path)
        if isinstance(payload, nn.Module):
            return Fitted(payload.state_dict(), ()), {}, payload.eval()
        facts = _facts_beside(payload)
        if whole := modules_in(payload):
            key, notes = preferred(whole, weights, str(path))
            return Fitted(whole[key].state_dict(), notes), facts, whole[key].eval()
    stored = stored_facts(facts, path)
    module: nn.Module | None = None
    if source:
        module = build_from(source)
    elif (ours := model or stored.model) and stored.classes:
        module = models.build(ours, len(stored.classes), **stored.options)
    if module is None:
        return find_state(payload, str(path), weights), facts, None
    refuse_quantized(path)
    fitted = fit_state(module, tensors_in(payload, str(path)), str(path), weights, assign=True)
    return fitted, facts, module.eval().float()


def _safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        facts = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is a damaged .safetensors file ({error}); save or copy it again") from error
    return state, facts if isinstance(facts, dict) else {}


def _facts_beside(payload: Any) -> dict[str, Any]:
    """Return the plain values beside the weights: epoch, classes, preprocess, settings; no tensors, no optimizer."""
    if not isinstance(payload, Mapping):
        return {}
    return {str(key): value for key, value in payload.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def module_layers(module: nn.Module, name: str) -> list[Layer]:
    """Return a module's layers in the order in which one image passes them; raises CheckpointError when it cannot."""
    import torch

    layers: list[Layer] = []
    hooks = [
        part.register_forward_hook(_recorder(name, layers))
        for name, part in module.named_modules()
        if not any(True for _ in part.children())
    ]
    try:
        with torch.no_grad():
            module(torch.zeros(1, 1, 28, 28))
    except Exception as error:
        # A user's forward can raise anything.
        raise CheckpointError(f"{name} does not take one 28x28 image ({first_line(error)}); check --model") from error
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def _recorder(name: str, layers: list[Layer]) -> Any:
    def record(part: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 (the signature is torch's)
        shape = tuple(output.shape[1:]) if hasattr(output, "shape") else ()
        weights = dict(part.named_parameters(recurse=False))
        macs = prod(shape) * _macs_an_output(part)
        layers.append(Layer(name, type(part).__name__, shape, sum(w.numel() for w in weights.values()), macs))

    return record


def _macs_an_output(part: nn.Module) -> int:
    from torch import nn

    if isinstance(part, nn.modules.conv._ConvNd):
        # A transposed convolution's weight is [in, out / groups, ...], so its inputs come from the other axis.
        inputs = part.in_channels // part.groups
        return inputs * prod(part.kernel_size)
    return part.in_features if isinstance(part, nn.Linear) else 0


def _program_layers(program: ExportedProgram) -> list[Layer]:
    layers = []
    weights = program.graph_signature.inputs_to_parameters
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not hasattr(value, "shape"):
            continue
        kind = str(node.target).removeprefix("aten.").split(".")[0]
        shape = tuple(int(size) for size in value.shape[1:])
        inputs = [arg for arg in node.args if hasattr(arg, "meta")]
        count = sum(arg.meta["val"].numel() for arg in inputs if arg.name in weights)
        fan_in = prod(inputs[1].meta["val"].shape[1:]) if kind in ("conv2d", "linear") else 0
        layers.append(Layer(node.name, kind, shape, int(count), prod(shape) * int(fan_in)))
    return layers


def _parameters(name: str, tensor: Tensor) -> int:
    # Running statistics of a batch norm are state, not parameters.
    return 0 if name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked") else tensor.numel()
