"""Torch's files and .safetensors, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifact import file_sha256
from targets.errors import first_line
from targets.host.text import json_value
from toolchain import models
from toolchain.checkpoint.computed_weights import bake
from toolchain.checkpoint.inspection.torch_macs import MacCounts, tally
from toolchain.checkpoint.metadata import METADATA_KEY, build_reference, metadata_of
from toolchain.checkpoint.pickled import refuse_quantized
from toolchain.checkpoint.source import build_from, import_source, parse_source
from toolchain.checkpoint.state import Fitted, find_state, fit_state, modules_in, preferred, tensors_in
from toolchain.checkpoint.torch_files import private_copy, read_pickle, read_program, read_torchscript, read_weights
from toolchain.core.errors import CheckpointError
from toolchain.formats.inspection import InspectedLayer, Inspection, StoredTensor, largest_first, left_out

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Counted:
    """What ran, and the operators among it whose multiply-accumulates nobody counts."""

    layers: list[InspectedLayer]
    left_out: set[str]

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of an image."""
        return sum(layer.macs for layer in self.layers)


_PLAIN = (str, int, float, bool, type(None))


def inspect_torch(
    path: Path, kind: str, model: str | None, *, trust_pickle: bool, weights: str | None = None
) -> Inspection:
    """Return what a torch or .safetensors file is; layers and MACs where there is a module to run."""
    counts = Counted([], set())
    script_macs: int | None = None
    facts: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if kind == "exported":
        program, extra = read_program(path, trusted=trust_pickle)
        facts = _metadata(extra, path)
        state = dict(program.state_dict)
        counts = _program_layers(program)
    elif kind == "torchscript":
        script = read_torchscript(path, trusted=trust_pickle)
        state = script.state_dict()
        script_macs, notes = _script_macs(script)
    else:
        fitted, facts, module = _weights(path, kind, model, trust_pickle, weights)
        state, notes = fitted.tensors, fitted.notes
        if module is None:
            notes = (*notes, "weights alone: say whose they are with --model to count layers and MACs")
        else:
            notes = (*notes, *bake(module))
            counts = module_layers(module, str(path))
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
        layers=tuple(counts.layers),
        macs=script_macs if not counts.layers else None if counts.left_out else counts.macs,
        metadata=facts,
        notes=(*notes, *left_out(counts.left_out)),
    )


def _weights(
    path: Path, kind: str, model: str | None, trust_pickle: bool, weights: str | None
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
    stored = metadata_of(facts)
    module: nn.Module | None = None
    if source:
        module = build_from(source)
    elif (ours := model or stored.model) and stored.classes:
        module = build_reference(path, ours, len(stored.classes), stored.options)
    if module is None:
        return find_state(payload, str(path), weights), facts, None
    refuse_quantized(path)
    fitted = fit_state(module, tensors_in(payload, str(path)), str(path), weights, assign=True)
    return fitted, facts, module.eval().float()


def _safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with private_copy(path) as copy, safe_open(copy, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is a damaged .safetensors file ({error}); save or copy it again") from error
    return state, _metadata(metadata, path)


def _metadata(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return what a file's metadata holds of ours. Raises CheckpointError where that is no JSON."""
    try:
        facts = json_value(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: its glyphpress metadata is no JSON ({error}); save it again") from error
    return facts if isinstance(facts, dict) else {}


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


def module_layers(module: nn.Module, name: str) -> Counted:
    """Return a module's layers in the order in which one image passes them; raises CheckpointError when it cannot.

    A layer is a module without others in it, or one that multiplies by itself, such as an attention.
    """
    import torch

    layers: dict[str, InspectedLayer | None] = {}
    with tally() as counts:
        hooks = [
            hook
            for key, part in module.named_modules()
            for hook in (
                part.register_forward_pre_hook(_begins(key, counts, layers)),
                part.register_forward_hook(_ends(key, counts, layers), always_call=True),
            )
        ]
        try:
            module(torch.zeros(1, 1, 28, 28))
        except Exception as error:
            # A user's forward can raise anything.
            raise CheckpointError(
                f"{name} does not take one 28x28 image ({first_line(error)}); check --model"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
    parts, ran = dict(module.named_modules()), [layer for layer in layers.values() if layer]
    listed = [
        replace(layer, name=layer.name or name, parameters=_with_idle(parts[layer.name], layer.name, layers), macs=macs)
        for layer in ran
        if (macs := counts.macs[layer.name]) or not any(True for _ in parts[layer.name].children())
    ]
    return Counted(listed, counts.left_out)


def _begins(key: str, counts: MacCounts, layers: dict[str, InspectedLayer | None]) -> Any:
    def begin(part: nn.Module, inputs: Any) -> None:  # noqa: ARG001 (the signature is torch's)
        layers.setdefault(key)
        counts.running.append(key)

    return begin


def _ends(key: str, counts: MacCounts, layers: dict[str, InspectedLayer | None]) -> Any:
    def end(part: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 (the signature is torch's)
        counts.running.pop()
        layers[key] = InspectedLayer(key, type(part).__name__, _shape(output))

    return end


def _shape(output: Any) -> tuple[int, ...]:
    """Return the shape of an output for one image, of the first one where there are several."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    return tuple(int(size) for size in output.shape[1:]) if hasattr(output, "shape") else ()


def _with_idle(part: nn.Module, key: str, ran: Mapping[str, Any]) -> int:
    """Return the weights of a layer, those of parts included that never run themselves, such as an attention's last."""
    count = sum(weight.numel() for weight in part.parameters(recurse=False))
    for name, child in part.named_children():
        inner = f"{key}.{name}" if key else name
        count += 0 if inner in ran else _with_idle(child, inner, ran)
    return count


def _script_macs(script: nn.Module) -> tuple[int | None, tuple[str, ...]]:
    """Return the multiply-accumulates of TorchScript, None where it does not take one image, and the notes on it."""
    import torch

    with tally() as counts:
        try:
            script(torch.zeros(1, 1, 28, 28))
        except Exception as error:  # noqa: BLE001 (a stranger's code can raise anything; its tensors are still shown)
            return None, ("TorchScript keeps no list of layers", f"it does not take one image ({first_line(error)})")
    total = None if counts.left_out else sum(counts.macs.values())
    return total, ("TorchScript keeps no list of layers", *left_out(counts.left_out))


def _program_layers(program: ExportedProgram) -> Counted:
    import torch

    shape = next(
        node.meta["val"].shape for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    )
    images = shape[0] if isinstance(shape[0], int) else 2
    layers: list[InspectedLayer] = []

    class Walk(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            counts.running.append(node.name)
            made = super().run_node(node)
            counts.running.pop()
            if node.op == "call_function" and (hasattr(made, "shape") or counts.macs[node.name]):
                weights = [
                    attrgetter(str(one.target))(self.module) for one in node.all_input_nodes if one.op == "get_attr"
                ]
                count = sum(weight.numel() for weight in weights if isinstance(weight, torch.nn.Parameter))
                kind = str(node.target).removeprefix("aten.").split(".")[0]
                layers.append(InspectedLayer(node.name, kind, _shape(made), count, counts.macs[node.name] // images))
            return made

    with tally() as counts:
        Walk(program.module()).run(torch.zeros(images, *map(int, shape[1:])))
    return Counted(layers, counts.left_out)


def _parameters(name: str, tensor: Tensor) -> int:
    # Running statistics of a batch norm are state, not parameters.
    return 0 if name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked") else tensor.numel()
