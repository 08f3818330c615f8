"""The channels of a model, in groups that can only go together: torch-pruning's dependency graph (arXiv:2301.12900)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolchain.core.errors import StageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEADS = ("num_heads", "n_heads", "heads", "nhead", "n_head")
_MAP = 4
"""Axes of a map: images, channels, rows, columns."""


@dataclass(frozen=True)
class Channels:
    """Channels that can only go together.

    layer: the first layer that makes them. tied: the other layers that do, such as those of a residual sum. width: how
    many there are. blocks: equal parts, of a grouped convolution or of heads, that must lose alike. group: torch-
    pruning's own.
    """

    layer: str
    tied: tuple[str, ...]
    width: int
    blocks: int
    group: Any = field(repr=False, compare=False)


class ChannelGraph:
    """A module's channels by their layer, in the order in which the layers run; `cut` changes the module.

    Raises StageError when the module's graph cannot be followed.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        """Trace the module, which is left in eval mode with gradients for all its parameters."""
        # eval: tracing needs gradients, but must not move the batch norms' statistics
        self.module, self.name = module.eval().requires_grad_(True), name
        self._names = {layer: word for word, layer in module.named_modules()}
        with self._followed():
            self._order = _run_order(module)
            self._heads = _heads(module, self._order)
            self._dependencies = _untied_graph().build_dependency(module, example_inputs=_sample())
            _refuse_endless(self._dependencies)
            roots = list(self._dependencies.get_all_groups(ignored_layers=[], root_module_types=_root_types()))
            found = [self._channels(root) for root in roots]
        place = {self._names[layer]: index for index, layer in enumerate(self._order)}
        kept = sorted((one for one in found if one), key=lambda one: place.get(one.layer, len(place)))
        self.channels: dict[str, Channels] = {one.layer: one for one in kept}

    def cut(self, goes: Mapping[str, list[int]]) -> None:
        """Remove channels: of each layer, the places within a block that go from each of its blocks."""
        with self._followed():
            for layer, places in goes.items():
                if places:
                    self._going(layer, places).prune()

    @contextmanager
    def silenced(self, layer: str, places: list[int]) -> Iterator[bool]:
        """Keep channels at zero for a while, in all that makes and takes them: what `cut` has to come to.

        Yields whether it has: what normalises over channels has other statistics without them.
        """
        hooks, makes = [], self._dependencies.is_out_channel_pruning_fn
        group = self._going(layer, places)
        for dep, indices in group:
            part, at = dep.target.module, [int(place) for place in indices]
            if isinstance(part, _root_types()):
                axis = -1 if isinstance(part, _linear()) else 1
                if makes(dep.handler):
                    hooks.append(
                        part.register_forward_hook(lambda _, _taken, gave, at=at, axis=axis: _zero(gave, axis, at))
                    )
                else:
                    hooks.append(
                        part.register_forward_pre_hook(lambda _, taken, at=at, axis=axis: (_zero(taken[0], axis, at),))
                    )
        try:
            yield not any(isinstance(dep.target.module, _over_channels()) for dep, _ in group)
        finally:
            for hook in hooks:
                hook.remove()

    def _going(self, layer: str, places: list[int]) -> Any:
        """Return torch-pruning's group of these places of each block."""
        own = self.channels[layer]
        size, root = own.width // own.blocks, own.group[0].dep
        indices = sorted(place + block * size for block in range(own.blocks) for place in places)
        return self._dependencies.get_pruning_group(root.target.module, root.handler, indices)

    def _channels(self, group: Any) -> Channels | None:
        """Describe a group; None where none of its layers has run."""
        makes = self._dependencies.is_out_channel_pruning_fn
        layers = [dep.target.module for dep, _ in group if makes(dep.handler)]
        ran = [layer for layer in self._order if layer in layers]
        if not ran:
            return None
        if any(layer in self._heads for layer in ran):
            group = self._rooted_below(group)
        blocks = [self._blocks(dep.target.module, made=makes(dep.handler)) for dep, _ in group]
        first, *rest = (self._names[layer] for layer in ran)
        return Channels(first, tuple(rest), len(group[0].idxs), max(blocks), group)

    def _rooted_below(self, group: Any) -> Any:
        """Begin an attention's group at the layer that takes its channels: q, k and v may be three parts of one."""
        takes = self._dependencies.is_in_channel_pruning_fn
        ends = [(dep, idxs) for dep, idxs in group if takes(dep.handler) and isinstance(dep.target.module, _linear())]
        if not ends:
            return group
        dep, idxs = ends[-1]
        return self._dependencies.get_pruning_group(dep.target.module, dep.handler, [int(place) for place in idxs])

    def _blocks(self, layer: Any, *, made: bool) -> int:
        pruner = self._dependencies.get_pruner_of_module(layer)
        if pruner is None or _depthwise(layer):
            return 1
        groups = pruner.get_out_channel_groups(layer) if made else pruner.get_in_channel_groups(layer)
        return max(int(groups), self._heads.get(layer, 1) if made else 1)

    @contextmanager
    def _followed(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            # torch-pruning asserts, and runs a stranger's forward, which may raise anything.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise StageError(
                f"{self.name}: torch-pruning cannot follow its graph ({reason}); press it without pruning channels"
            ) from error


def prunable(module: nn.Module, name: str) -> tuple[dict[str, Channels], dict[str, str]]:
    """Return the channels that can go, and why those of the other layers cannot; `module` stays as it is.

    Each is tried by itself: half of it is cut from a copy, which must still run, give as many logits, and answer as the
    whole does with that half at zero. Raises StageError when nothing can go.
    """
    whole = ChannelGraph(copy.deepcopy(module), name)
    refused: dict[str, str] = {}
    for own in whole.channels.values():
        if reason := _trouble(module, name, own):
            refused |= dict.fromkeys((own.layer, *own.tied), reason)
    found = {layer: own for layer, own in whole.channels.items() if layer not in refused}
    if not found:
        raise StageError(
            f"{name} has no Linear or Conv2d layer whose channels can be removed "
            f"({by_reason(refused) or 'none runs'}); "
            "press it without pruning channels"
        )
    return found, refused


def by_reason(refused: Mapping[str, str]) -> str:
    """Return why layers stay, each reason once: `a, b: it gives the logits`."""
    layers = {reason: ", ".join(one for one in refused if refused[one] == reason) for reason in refused.values()}
    return "; ".join(f"{names}: {reason}" for reason, names in layers.items())


def _trouble(module: nn.Module, name: str, own: Channels) -> str:
    import torch

    size = own.width // own.blocks
    if size < 2:
        return "it has a single channel" if own.blocks == 1 else "each of its blocks has a single channel"
    places, images = list(range(size // 2)), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    copied = copy.deepcopy(module)
    try:
        graph = ChannelGraph(copied, name)
        with torch.no_grad():
            with graph.silenced(own.layer, places) as comparable:
                meant = copied(images)
            graph.cut({own.layer: places})
            answered = copied(images)
    except Exception as error:  # noqa: BLE001 (a stranger's forward may raise anything once its shapes have changed)
        return f"the model does not run with fewer of its channels ({(str(error).splitlines() or [''])[0]})"
    if answered.shape != meant.shape:
        return "it gives the logits"
    if comparable and not torch.allclose(answered, meant, rtol=0, atol=1e-3 * max(1.0, float(meant.abs().max()))):
        return "its channels change their order on the way to the next layer, so they cannot be cut"
    return ""


def _refuse_endless(dependencies: Any) -> None:
    """Raise ValueError where flattened maps are concatenated: torch-pruning would follow their indices without end."""
    from torch_pruning.ops import OPTYPE

    for node in dependencies.module2node.values():
        above = list(node.inputs) if node.type == OPTYPE.CONCAT else []
        while above:
            one = above.pop()
            if one.type == OPTYPE.RESHAPE:
                raise ValueError("it concatenates maps that are flattened already; concatenate them first")
            # A transposed map is one of tokens, whose channels are whole.
            if one.type == OPTYPE.ELEMENTWISE and "Transpose" not in one.name and "Permute" not in one.name:
                above.extend(one.inputs)


def _untied_graph() -> Any:
    """Return a graph that does not tie a map of one channel to the many that it scales, nor a mean over channels."""
    from torch_pruning import DependencyGraph
    from torch_pruning.ops import OPTYPE

    class Untied(DependencyGraph):  # type: ignore[misc]  # torch-pruning has no types
        def _build_dependency(self, module2node: Any) -> None:
            for node in module2node.values():
                widths = [_width(one) for one in node.inputs] if node.type == OPTYPE.ELEMENTWISE else []
                alone = [
                    one
                    for one, width in zip(node.inputs, widths, strict=False)
                    if width == 1 < max(map(_or_one, widths))
                ]
                for one in node.inputs[:] if _reduces_channels(node) else alone:
                    node.inputs.remove(one)
                    one.outputs.remove(node)
            super()._build_dependency(module2node)

        def get_out_channels(self, module_or_node: Any) -> Any:
            node = self.module2node.get(module_or_node, module_or_node)
            return 1 if _reduces_channels(node) else super().get_out_channels(module_or_node)

    return Untied()


def _width(node: Any) -> int | None:
    """Return how many channels come out of a node, None where layers before it do not say."""
    from torch import nn
    from torch_pruning.ops import OPTYPE

    part: Any = node.module
    if isinstance(part, _root_types()):
        return int(getattr(part, "out_features" if isinstance(part, _linear()) else "out_channels"))
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return int(part.num_features)
    if _reduces_channels(node):
        return 1
    if node.type not in (OPTYPE.ELEMENTWISE, OPTYPE.EXPAND):
        return None
    widths = [_width(one) for one in node.inputs]
    return None if None in widths else max(map(_or_one, widths), default=None)


def _or_one(width: int | None) -> int:
    return width or 1


def _reduces_channels(node: Any) -> bool:
    """Return whether a node makes one map of all, as a mean or a maximum over the channels does."""
    made: Any = getattr(node, "grad_fn", None)
    if not (hasattr(made, "_saved_dim") and hasattr(made, "_saved_keepdim")):
        return False
    sizes = made._saved_self_sym_sizes if hasattr(made, "_saved_self_sym_sizes") else made._saved_self.shape
    dims = made._saved_dim if isinstance(made._saved_dim, tuple) else (made._saved_dim,)
    # A tensor of three axes holds tokens, whose channels are the last. Autograd keeps -3 without its sign.
    return len(sizes) == _MAP and any(dim in (1, 2**64 - 3) for dim in dims)


def _sample() -> Tensor:
    import torch

    return torch.zeros(2, 1, 28, 28)


def _zero(values: Tensor, axis: int, at: list[int]) -> Tensor:
    import torch

    return values.index_fill(axis, torch.tensor(at), 0.0)


def _over_channels() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)


def _linear() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return (nn.Linear,)


def _root_types() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return (nn.modules.conv._ConvNd, nn.Linear)


def _depthwise(layer: Any) -> bool:
    groups = getattr(layer, "groups", 1)
    return groups > 1 and groups == getattr(layer, "out_channels", 0)


def _run_order(module: nn.Module) -> list[nn.Module]:
    import torch
    from torch import nn

    order: list[nn.Module] = []
    layers = [part for part in module.modules() if isinstance(part, (*_root_types(), nn.MultiheadAttention))]
    hooks = [layer.register_forward_hook(lambda ran, *_: order.append(ran)) for layer in layers]
    try:
        with torch.no_grad():
            module(_sample())
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


def _heads(module: nn.Module, order: list[nn.Module]) -> dict[nn.Module, int]:
    """Return the heads of each layer that makes queries, keys or values, as their parent's attribute counts them."""
    from torch import nn

    found: dict[nn.Module, int] = {}
    for part in module.modules():
        counts = (vars(part).get(word) for word in _HEADS)
        heads = next((count for count in counts if isinstance(count, int) and count > 1), 1)
        if isinstance(part, nn.MultiheadAttention):
            found[part] = heads
        elif heads > 1:
            own = set(part.children())
            # The last one to run brings the heads together.
            layers = [layer for layer in order if layer in own and isinstance(layer, nn.Linear)]
            found |= {layer: heads for layer in layers[:-1] if layer.out_features % heads == 0}
    return found
