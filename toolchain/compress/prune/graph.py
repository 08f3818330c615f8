"""The channels of a model in groups that must be pruned together, by torch-pruning (arXiv:2301.12900)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from targets.errors import first_line
from toolchain.checkpoint.inspection import hooks_removed, run_order
from toolchain.core.errors import StageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEADS = ("num_heads", "n_heads", "heads", "nhead", "n_head")
_MAP_AXES = 4
"""Number of axes of a feature map: images, channels, rows, columns."""


@dataclass(frozen=True)
class Channels:
    """Channels that must be pruned together.

    layer: the first layer that computes them. tied: the other layers that do, such as those of a residual sum. width:
    number of channels. blocks: number of equal parts (groups of a convolution, heads of an attention), each of which
    must lose the same indices. group: torch-pruning's own object.
    """

    layer: str
    tied: tuple[str, ...]
    width: int
    blocks: int
    group: Any = field(repr=False, compare=False)


class ChannelGraph:
    """A module's channels by layer, in the order in which the layers run; `cut` changes the module.

    Raises StageError when the module's graph cannot be traced.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        """Trace the module, which is left in eval mode with gradients for all its parameters."""
        from torch import nn

        # Tracing runs the module, which must not change the statistics of batch norms.
        self.module, self.name = module.eval().requires_grad_(True), name
        self._names = {layer: path for path, layer in module.named_modules()}
        with self._traced():
            layers = [part for part in module.modules() if isinstance(part, (*_root_types(), nn.MultiheadAttention))]
            self._order = list(dict.fromkeys(run_order(module, layers, _sample())))
            self._heads = _heads(module, self._order)
            try:
                self._dependencies = _untied_graph().build_dependency(module, example_inputs=_sample())
            except TypeError as error:
                # It adds up the channels of what a concatenation joins, and finds None.
                raise ValueError("it joins outputs whose channels are not known, such as recurrent ones") from error
            _refuse_endless(self._dependencies)
            _untie_contradictions(self._dependencies)
            roots = list(self._dependencies.get_all_groups(ignored_layers=[], root_module_types=_root_types()))
            described = [self._channels(root) for root in roots]
        position = {self._names[layer]: index for index, layer in enumerate(self._order)}
        ran = [channels for channels in described if channels]
        ran.sort(key=lambda channels: position.get(channels.layer, len(position)))
        self.channels: dict[str, Channels] = {channels.layer: channels for channels in ran}

    def cut(self, removed: Mapping[str, list[int]]) -> None:
        """Remove channels. removed: layer -> the indices within a block, which each of its blocks loses."""
        with self._traced():
            for layer, indices in removed.items():
                if indices:
                    self._pruning_group(layer, indices).prune()

    @contextmanager
    def zeroed(self, layer: str, indices: list[int]) -> Iterator[bool]:
        """Hold channels at zero inside the block, wherever they are written or read.

        Yields whether the module must then give the same answers as after `cut`; a norm over channels has other
        statistics without them.
        """
        from torch import nn

        # A batch norm shifts channels away from zero, which a function such as a maximum over channels would see.
        held: tuple[type[nn.Module], ...] = (*_root_types(), nn.BatchNorm1d, nn.BatchNorm2d)
        hooks, writes = [], self._dependencies.is_out_channel_pruning_fn
        group = self._pruning_group(layer, indices)
        for dep, dep_indices in group:
            part = dep.target.module
            if isinstance(part, held):
                axis = -1 if isinstance(part, nn.Linear) else 1
                zero = partial(_zero, axis=axis, indices=[int(index) for index in dep_indices])
                if writes(dep.handler):
                    hooks.append(part.register_forward_hook(lambda _, _args, output, zero=zero: zero(output)))
                else:
                    hooks.append(part.register_forward_pre_hook(lambda _, inputs, zero=zero: (zero(inputs[0]),)))
        channel_norms = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)
        with hooks_removed(hooks):
            yield not any(isinstance(dep.target.module, channel_norms) for dep, _ in group)

    def reduced(self, layer: str) -> bool:
        """Return whether a mean or maximum over the channels of a layer is taken."""
        nodes = {id(node) for node in self._dependencies.reduced}
        return any(id(dep.target) in nodes for dep, _ in self.channels[layer].group)

    def _pruning_group(self, layer: str, indices: list[int]) -> Any:
        """Return torch-pruning's group of these indices of each block."""
        channels = self.channels[layer]
        size, root = channels.width // channels.blocks, channels.group[0].dep
        in_all_blocks = sorted(index + block * size for block in range(channels.blocks) for index in indices)
        return self._dependencies.get_pruning_group(root.target.module, root.handler, in_all_blocks)

    def _channels(self, group: Any) -> Channels | None:
        """Return a group as `Channels`; None where none of its layers runs."""
        writes = self._dependencies.is_out_channel_pruning_fn
        layers = [dep.target.module for dep, _ in group if writes(dep.handler)]
        ran = [layer for layer in self._order if layer in layers]
        if not ran:
            return None
        if any(layer in self._heads for layer in ran):
            group = self._rooted_below(group)
        blocks = [self._blocks(dep.target.module, output=writes(dep.handler)) for dep, _ in group]
        first, *rest = (self._names[layer] for layer in ran)
        return Channels(first, tuple(rest), len(group[0].idxs), max(blocks), group)

    def _rooted_below(self, group: Any) -> Any:
        """Return an attention's group from the layer that reads its channels, as q, k and v may be one layer."""
        from torch import nn

        reads = self._dependencies.is_in_channel_pruning_fn
        readers = [
            (dep, idxs) for dep, idxs in group if reads(dep.handler) and isinstance(dep.target.module, nn.Linear)
        ]
        if not readers:
            return group
        dep, idxs = readers[-1]
        return self._dependencies.get_pruning_group(dep.target.module, dep.handler, [int(index) for index in idxs])

    def _blocks(self, layer: Any, *, output: bool) -> int:
        pruner = self._dependencies.get_pruner_of_module(layer)
        if pruner is None or _depthwise(layer):
            return 1
        groups = pruner.get_out_channel_groups(layer) if output else pruner.get_in_channel_groups(layer)
        return max(int(groups), self._heads.get(layer, 1) if output else 1)

    @contextmanager
    def _traced(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            # torch-pruning asserts, and it runs the user's forward, which may raise anything.
            raise StageError(
                f"{self.name}: torch-pruning cannot trace it ({first_line(error)}); press it without pruning channels"
            ) from error


def prunable(module: nn.Module, name: str) -> tuple[dict[str, Channels], dict[str, str]]:
    """Return the channels that can be pruned, and why those of the other layers cannot; `module` is not changed.

    Each group is tried alone: half of it is cut from a copy, which must still run and give the logits that the whole
    module gives with that half at zero. Raises StageError when nothing can be pruned.
    """
    whole = ChannelGraph(copy.deepcopy(module), name)
    refused: dict[str, str] = {}
    for channels in whole.channels.values():
        if reason := _refusal(module, name, channels):
            refused |= dict.fromkeys((channels.layer, *channels.tied), reason)
    possible = {layer: channels for layer, channels in whole.channels.items() if layer not in refused}
    if not possible:
        raise StageError(
            f"{name} has no Linear or Conv2d layer whose channels can be removed "
            f"({by_reason(refused) or 'none runs'}); "
            "press it without pruning channels"
        )
    return possible, refused


def by_reason(refused: Mapping[str, str]) -> str:
    """Return why layers cannot be pruned, with each reason once, such as `a, b: it gives the logits`."""
    layers = {reason: ", ".join(layer for layer in refused if refused[layer] == reason) for reason in refused.values()}
    return "; ".join(f"{names}: {reason}" for reason, names in layers.items())


def _refusal(module: nn.Module, name: str, channels: Channels) -> str:
    """Return why the channels cannot be pruned; empty where they can."""
    import torch

    size = channels.width // channels.blocks
    if size < 2:
        return "it has a single channel" if channels.blocks == 1 else "each of its blocks has a single channel"
    half, images = list(range(size // 2)), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    copied = copy.deepcopy(module)
    try:
        graph = ChannelGraph(copied, name)
        reduced = graph.reduced(channels.layer)
        with torch.no_grad():
            with graph.zeroed(channels.layer, half) as comparable:
                expected = copied(images)
            graph.cut({channels.layer: half})
            logits = copied(images)
    except Exception as error:  # noqa: BLE001 (the user's forward may raise anything once shapes have changed)
        return f"the model does not run with fewer of its channels ({(str(error).splitlines() or [''])[0]})"
    if logits.shape != expected.shape:
        return "it gives the logits"
    if comparable and not torch.allclose(logits, expected, rtol=0, atol=1e-3 * max(1.0, float(expected.abs().max()))):
        if reduced:
            return "a mean or maximum is taken over its channels, which would be another one over fewer"
        return "its channels change their order on the way to the next layer, so they cannot be cut"
    return ""


def _refuse_endless(dependencies: Any) -> None:
    """Raise ValueError where flattened maps are concatenated: torch-pruning would trace their indices endlessly."""
    from torch_pruning.ops import OPTYPE

    for node in dependencies.module2node.values():
        pending = list(node.inputs) if node.type == OPTYPE.CONCAT else []
        while pending:
            source = pending.pop()
            if source.type == OPTYPE.RESHAPE:
                raise ValueError("it concatenates maps that are flattened already; concatenate them first")
            # A transposed map holds tokens, whose channels are not split.
            if source.type == OPTYPE.ELEMENTWISE and "Transpose" not in source.name and "Permute" not in source.name:
                pending.extend(source.inputs)


def _untie_contradictions(dependencies: Any) -> None:
    """Untie maps that are viewed again and again, as in self-attention over the positions of a map.

    A view that keeps the channels counts as a flattening for torch-pruning, so each multiplies the indices again: three
    of 324 positions would take hours and all memory. Layers that are tied through such a view then do not run with
    fewer channels, which `_refusal` finds.
    """
    from torch_pruning.dependency.index_mapping import update_index_mapping
    from torch_pruning.ops import OPTYPE

    update_index_mapping(dependencies)
    nodes = list(dependencies.module2node.values())
    while reached := _contradicting(dependencies):
        views = {id(node) for node in reached if node.type == OPTYPE.RESHAPE}
        if not views:
            raise ValueError("the sizes of its maps contradict each other")
        for node in nodes:
            node.dependencies = [dep for dep in node.dependencies if not {id(dep.source), id(dep.target)} & views]


def _contradicting(dependencies: Any) -> list[Any]:
    """Return the nodes that a layer's channels reach where the sizes of one channel cannot be; [] for no layer.

    They cannot be two at one place, nor larger than one flattening makes them, since a map is flattened once.
    """
    every = [dep for node in dependencies.module2node.values() for dep in node.dependencies]
    largest = max((_growth(dep.index_mapping) for dep in every), default=Fraction(1))
    for module, node in dependencies.module2node.items():
        if not isinstance(module, _root_types()):
            continue
        start = dependencies.get_pruner_of_module(module).prune_out_channels
        # By node and what is cut of it: indices for each channel of the layer.
        sizes, seen, pending = {(node, start): Fraction(1)}, {(node, start)}, [(node, start)]
        while pending:
            at = pending.pop()
            for dep in at[0].dependencies:
                if not dep.is_triggered_by(at[1]):
                    continue
                size, reached = sizes[at] * _growth(dep.index_mapping), (dep.target, dep.handler)
                if sizes.setdefault(reached, size) != size or max(size, 1 / size) > largest:
                    return [reached_node for reached_node, _ in sizes]
                if reached not in seen:
                    seen.add(reached)
                    pending.append(reached)
    return []


def _growth(mappings: Any) -> Fraction:
    """Return by how much torch-pruning multiplies the number of indices on the way between two nodes."""
    strides = [(mapping._stride, mapping.reverse) for mapping in mappings if hasattr(mapping, "_stride")]
    return prod(
        (Fraction(1, stride) if reverse else Fraction(stride) for stride, reverse in strides), start=Fraction(1)
    )


def _untied_graph() -> Any:
    """Return a graph that ties no map of one channel, such as a mean over channels, to the channels it scales."""
    from torch import nn
    from torch_pruning import DependencyGraph
    from torch_pruning.ops import OPTYPE

    class UntiedGraph(DependencyGraph):  # type: ignore[misc]  # torch-pruning has no types
        def __init__(self) -> None:
            super().__init__()
            self.reduced: list[Any] = []
            """Nodes of whose channels a mean or maximum is taken."""

        def _build_dependency(self, module2node: Any) -> None:
            for node in module2node.values():
                if isinstance(node.module, nn.PReLU):
                    # The view of a single slope would count as the channels of the map.
                    for source in [each for each in node.inputs if each.type == OPTYPE.RESHAPE and not each.inputs]:
                        node.inputs.remove(source)
                        source.outputs.remove(node)
                widths = [_width(source) for source in node.inputs] if node.type == OPTYPE.ELEMENTWISE else []
                broadcast = [
                    source
                    for source, width in zip(node.inputs, widths, strict=False)
                    if width == 1 < max(map(_or_one, widths))
                ]
                if _reduces_channels(node):
                    self.reduced += node.inputs
                for source in node.inputs[:] if _reduces_channels(node) else broadcast:
                    node.inputs.remove(source)
                    source.outputs.remove(node)
            super()._build_dependency(module2node)

        def get_out_channels(self, module_or_node: Any) -> Any:
            node = self.module2node.get(module_or_node, module_or_node)
            return 1 if _reduces_channels(node) else super().get_out_channels(module_or_node)

    return UntiedGraph()


def _width(node: Any) -> int | None:
    """Return the number of channels of a node's output, None where the layers before it do not determine it."""
    from torch import nn
    from torch_pruning.ops import OPTYPE

    part: Any = node.module
    if isinstance(part, _root_types()):
        return int(getattr(part, "out_features" if isinstance(part, nn.Linear) else "out_channels"))
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return int(part.num_features)
    if _reduces_channels(node):
        return 1
    if node.type not in (OPTYPE.ELEMENTWISE, OPTYPE.EXPAND):
        return None
    widths = [_width(source) for source in node.inputs]
    return None if None in widths else max(map(_or_one, widths), default=None)


def _or_one(width: int | None) -> int:
    return width or 1


def _reduces_channels(node: Any) -> bool:
    """Return whether a node reduces all channels to one, as a mean or a maximum over them does."""
    grad: Any = getattr(node, "grad_fn", None)
    if not (hasattr(grad, "_saved_dim") and hasattr(grad, "_saved_keepdim")):
        return False
    sizes = grad._saved_self_sym_sizes if hasattr(grad, "_saved_self_sym_sizes") else grad._saved_self.shape
    dims = grad._saved_dim if isinstance(grad._saved_dim, tuple) else (grad._saved_dim,)
    # A tensor of three axes holds tokens, whose channels are the last axis. Autograd stores -3 as unsigned.
    return len(sizes) == _MAP_AXES and any(dim in (1, 2**64 - 3) for dim in dims)


def _sample() -> Tensor:
    import torch

    return torch.zeros(2, 1, 28, 28)


def _zero(values: Tensor, axis: int, indices: list[int]) -> Tensor:
    import torch

    return values.index_fill(axis, torch.tensor(indices), 0.0)


def _root_types() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return (nn.modules.conv._ConvNd, nn.Linear)


def _depthwise(layer: Any) -> bool:
    groups = getattr(layer, "groups", 1)
    return groups > 1 and groups == getattr(layer, "out_channels", 0)


def _heads(module: nn.Module, order: list[nn.Module]) -> dict[nn.Module, int]:
    """Return the number of heads of each layer that makes queries, keys or values, from its parent's attribute."""
    from torch import nn

    head_counts: dict[nn.Module, int] = {}
    for part in module.modules():
        counts = (vars(part).get(attribute) for attribute in _HEADS)
        heads = next((count for count in counts if isinstance(count, int) and count > 1), 1)
        if isinstance(part, nn.MultiheadAttention):
            head_counts[part] = heads
        elif heads > 1:
            children = set(part.children())
            # The last layer to run merges the heads.
            layers = [layer for layer in order if layer in children and isinstance(layer, nn.Linear)]
            head_counts |= {layer: heads for layer in layers[:-1] if layer.out_features % heads == 0}
    return head_counts
