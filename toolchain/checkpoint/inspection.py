"""What a model file holds: layers, shapes, parameters, multiply-accumulates, dtypes, sizes, our metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.errors import first_line, translated
from toolchain import models
from toolchain.checkpoint.computed_weights import bake
from toolchain.checkpoint.file_arguments import build_and_fit
from toolchain.checkpoint.float_model import FloatModel, OnnxModel
from toolchain.checkpoint.kinds import kind_name, kind_of, refuse_quantized_pickle
from toolchain.checkpoint.metadata import build_reference, metadata_of, our_facts, read_values
from toolchain.checkpoint.source import parse_source
from toolchain.checkpoint.state import Fitted, find_state, fit_state, modules_in, preferred, tensors_in
from toolchain.checkpoint.torch_files import read_payload, read_program, read_safetensors, read_torchscript
from toolchain.core.errors import CheckpointError
from toolchain.formats import catalog
from toolchain.formats.inspection import InspectedLayer, Inspection, StoredTensor, uncounted_note, with_sidecar

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.utils.hooks import RemovableHandle

__all__ = ["InspectedLayer", "Inspection", "StoredTensor", "counted", "inspect_file"]

_PLAIN = (str, int, float, bool, type(None))
_COUNTED_NAMESPACES = ("aten", "prim", "prims", "profiler")
_LEFT_OUT = {
    "_cdist_forward", "_fft_c2c", "_fft_c2r", "_fft_r2c", "_int_mm", "_native_multi_head_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_transformer_encoder_layer_fwd", "linalg_inv_ex",
    "linalg_solve_triangular", "mkldnn_rnn_layer",
}  # fmt: skip
"""Operators with many products for which there is no formula."""
_PRODUCTS: dict[str, Callable[[Any, Any], int]] = {
    "mv": lambda args, _: args[0].numel(),
    "addmv": lambda args, _: args[1].numel(),
    "dot": lambda args, _: args[0].numel(),
    "vdot": lambda args, _: args[0].numel(),
    "addbmm": lambda args, _: args[1].numel() * args[2].shape[-1],
    "_trilinear": lambda args, _: args[0].shape[0] * args[1].numel(),
    "conv_tbc": lambda args, output: output.numel() * prod(args[1].shape[:2]),
}
"""Products of operators that torch's own table does not have, from an operator's arguments and its output."""


def inspect_file(
    path_or_name: str, *, model: str | None = None, trust_pickle: bool = False, weights: str | None = None
) -> Inspection:
    """Return what a model file, or the weights of a built-in model, hold.

    model: the value of `--model`; with it the layers and MACs of weights alone are counted too. weights: the key of the
    weights to take, of a file that holds several. Raises CheckpointError when it is no model file or cannot be read.
    """
    shipped = models.shipped_weights(path_or_name) if path_or_name in models.names() else None
    is_estimator = path_or_name in models.ESTIMATORS and not Path(path_or_name).exists()
    if is_estimator or (path_or_name in models.names() and shipped is None):
        raise CheckpointError(
            f"{path_or_name} ships without weights; train it: glyphpress train --model {path_or_name}"
        )
    path = shipped or Path(path_or_name)
    kind = kind_of(path)
    title = kind_name(kind)
    with translated(lambda reason: CheckpointError(f"{path} is a damaged {title} ({reason}); save or export it again")):
        if kind in catalog.REGISTRY:
            return with_sidecar(catalog.get(kind).inspect(path))
        return _inspect_torch(path, kind, model, trust_pickle=trust_pickle, weights=weights)


def counted(model: FloatModel) -> tuple[int | None, int | None]:
    """Return a model's parameters and multiply-accumulates an image; None where not all of them can be counted."""
    if isinstance(model, OnnxModel):
        from toolchain.formats.onnx.inspection import count_onnx

        return count_onnx(model.original)
    parameters = sum(weight.numel() for weight in model.module.parameters())
    return parameters, None if model.refusal else module_layers(model.module, model.name).all_macs or None


@dataclass(frozen=True)
class Counted:
    """The layers that ran, and those operators in them whose multiply-accumulates cannot be counted (`left_out`)."""

    layers: list[InspectedLayer]
    left_out: set[str]

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of an image, without those of `left_out`."""
        return sum(layer.macs for layer in self.layers)

    @property
    def all_macs(self) -> int | None:
        """Return the multiply-accumulates of an image, None where not all can be counted."""
        return None if self.left_out else self.macs


def _inspect_torch(path: Path, kind: str, model: str | None, *, trust_pickle: bool, weights: str | None) -> Inspection:
    """Inspect a torch or .safetensors file; layers and MACs where there is a module to run."""
    counts = Counted([], set())
    script_macs: int | None = None
    notes: tuple[str, ...] = ()
    if kind == "exported":
        program, metadata = read_program(path, trusted=trust_pickle)
        facts = our_facts(metadata, path)
        state = dict(program.state_dict)
        counts = _program_layers(program)
    elif kind == "torchscript":
        script = read_torchscript(path, trusted=trust_pickle)
        facts, state = {}, script.state_dict()
        script_macs, notes = _script_macs(script)
    else:
        fitted, facts, module = _weights(path, kind, model, trust_pickle, weights)
        state, notes = fitted.tensors, fitted.notes
        if module is None:
            notes = (*notes, "weights without a model: give its class with --model to count layers and MACs")
        else:
            notes = (*notes, *bake(module))
            counts = module_layers(module, str(path))
    tensors = [
        StoredTensor(name, str(t.dtype).removeprefix("torch."), tuple(t.shape), t.numel() * t.element_size())
        for name, t in state.items()
    ]
    return Inspection.of(
        path,
        kind,
        tensors,
        parameters=sum(_parameters(name, tensor) for name, tensor in state.items()),
        layers=tuple(counts.layers),
        macs=counts.all_macs if counts.layers else script_macs,
        metadata=facts,
        notes=(*notes, *uncounted_note(counts.left_out)),
    )


def _weights(
    path: Path, kind: str, model: str | None, trust_pickle: bool, weights: str | None
) -> tuple[Fitted, dict[str, Any], nn.Module | None]:
    """Return a file's weights, the facts beside them, and the module that they belong to, None where not known."""
    from torch import nn

    source = parse_source(model) if model and model not in models.names() else None
    payload: object
    if kind == "safetensors":
        payload, metadata = read_safetensors(path)
        facts, beside = our_facts(metadata, path), read_values(metadata)
    else:
        payload = read_payload(path, source, trusted=trust_pickle)
        if isinstance(payload, nn.Module):
            return Fitted(payload.state_dict(), ()), {}, payload.eval()
        beside = dict(payload) if isinstance(payload, Mapping) else {}
        # Epoch, classes, preprocess, settings; no tensors, no optimizer.
        facts = {str(key): value for key, value in beside.items() if _is_plain(value)}
        if whole := modules_in(payload):
            key, notes = preferred(whole, weights, str(path))
            return Fitted(whole[key].state_dict(), notes), facts, whole[key].eval()
    stored = metadata_of(facts)
    if source:
        refuse_quantized_pickle(path)
        tensors = tensors_in(payload, str(path))
        module, fitted = build_and_fit(source, beside, tensors, str(path), weights, assign=True)
        return fitted, facts, module.eval().float()
    if (name := model or stored.model) and stored.classes:
        module = build_reference(path, name, len(stored.classes), stored.options)
    else:
        return find_state(payload, str(path), weights), facts, None
    refuse_quantized_pickle(path)
    fitted = fit_state(module, tensors_in(payload, str(path)), str(path), weights, assign=True)
    return fitted, facts, module.eval().float()


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def module_layers(module: nn.Module, name: str) -> Counted:
    """Return a module's layers in the order in which one image passes them; raises CheckpointError when it cannot.

    A layer is a module without submodules, or one that multiplies in its own forward, such as an attention.
    """
    import torch

    layers: dict[str, InspectedLayer | None] = {}

    def begin(key: str, _part: nn.Module, _inputs: object) -> None:
        layers.setdefault(key)
        counts.running.append(key)

    def end(key: str, part: nn.Module, _inputs: object, output: object) -> None:
        counts.running.pop()
        layers[key] = InspectedLayer(key, type(part).__name__, _shape(output))

    with tally() as counts:
        hooks = [part.register_forward_pre_hook(partial(begin, key)) for key, part in module.named_modules()]
        hooks += [
            part.register_forward_hook(partial(end, key), always_call=True) for key, part in module.named_modules()
        ]
        try:
            with hooks_removed(hooks):
                module(torch.zeros(1, 1, 28, 28))
        except Exception as error:  # a user's forward can raise anything
            raise CheckpointError(
                f"{name} does not take one 28x28 image ({first_line(error)}); check --model"
            ) from error
    parts = dict(module.named_modules())
    listed = [
        replace(layer, name=layer.name or name, parameters=_with_idle(parts[layer.name], layer.name, layers), macs=macs)
        for layer in filter(None, layers.values())
        if (macs := counts.macs[layer.name]) or not any(True for _ in parts[layer.name].children())
    ]
    return Counted(listed, counts.left_out)


def run_order(module: nn.Module, layers: Iterable[nn.Module], pixels: Tensor) -> list[nn.Module]:
    """Return `layers` in the order in which the module runs them on `pixels`, each as often as it runs."""
    import torch

    order: list[nn.Module] = []
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    with hooks_removed(hooks), torch.no_grad():
        module(pixels)
    return order


@contextmanager
def hooks_removed(hooks: list[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _shape(output: Any) -> tuple[int, ...]:
    """Return the shape of an output for one image; of the first where there are several outputs."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    return tuple(int(size) for size in output.shape[1:]) if hasattr(output, "shape") else ()


def _with_idle(part: nn.Module, key: str, ran: Collection[str]) -> int:
    """Count a layer's weights, and those of its parts that never run by themselves, as an attention's last layer."""
    count = sum(weight.numel() for weight in part.parameters(recurse=False))
    for name, child in part.named_children():
        inner = f"{key}.{name}" if key else name
        count += 0 if inner in ran else _with_idle(child, inner, ran)
    return count


def _script_macs(script: nn.Module) -> tuple[int | None, tuple[str, ...]]:
    """Return the multiply-accumulates of TorchScript, None where they cannot be counted, and notes."""
    import torch

    note = "TorchScript keeps no list of layers"
    with tally() as counts:
        try:
            script(torch.zeros(1, 1, 28, 28))
        except Exception as error:  # noqa: BLE001 (untrusted code can raise anything; its tensors are still shown)
            return None, (note, f"it does not take one image ({first_line(error)})")
    return None if counts.left_out else sum(counts.macs.values()), (note, *uncounted_note(counts.left_out))


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
            output = super().run_node(node)
            counts.running.pop()
            if node.op == "call_function" and (hasattr(output, "shape") or counts.macs[node.name]):
                weights = [
                    attrgetter(str(source.target))(self.module)
                    for source in node.all_input_nodes
                    if source.op == "get_attr"
                ]
                count = sum(weight.numel() for weight in weights if isinstance(weight, torch.nn.Parameter))
                kind = str(node.target).removeprefix("aten.").split(".")[0]
                layers.append(InspectedLayer(node.name, kind, _shape(output), count, counts.macs[node.name] // images))
            return output

    with tally() as counts:
        Walk(program.module()).run(torch.zeros(images, *map(int, shape[1:])))
    return Counted(layers, counts.left_out)


def _parameters(name: str, tensor: Tensor) -> int:
    # Running statistics of a batch norm are state, not parameters.
    return 0 if name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked") else tensor.numel()


@dataclass
class MacCounts:
    """What ran. macs: by the layer that was last in `running`. left_out: operators that cannot be counted."""

    running: list[str] = field(default_factory=list)
    macs: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)

    def add(self, operator: Any, args: Any, kwargs: Any, output: Any, table: Any) -> None:
        """Count one call of an operator. table: torch's own, which counts two operations for each product."""
        packet = operator._overloadpacket
        name, namespace = packet.__name__, operator.namespace
        if packet in table:
            count = int(table[packet](*args, **kwargs, out_val=output)) // 2
        elif namespace == "aten" and name in _PRODUCTS:
            count = int(_PRODUCTS[name](args, output))
        else:
            if namespace not in _COUNTED_NAMESPACES or (namespace == "aten" and name in _LEFT_OUT):
                self.left_out.add(f"{namespace}::{name}")
            return
        self.macs[self.running[-1] if self.running else ""] += count


@contextmanager
def tally() -> Iterator[MacCounts]:
    """Count multiply-accumulates of torch's lowest operators in the block, as torch.utils.flop_counter does.

    No gradients are computed; fused attention and recurrent layers run as separate products.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    counts = MacCounts()

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            counts.add(func, args, kwargs or {}, output, flop_registry)
            return output

    counting: Any = Counting
    fused, kernels = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # As torch.backends.mkldnn.flags does, which also warns about settings that are not used here.
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counting():
            yield counts
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch._C._set_mkldnn_enabled(kernels)
