"""Bound what a branch of `where` computes where it is not taken, so that integers can hold its values.

An ELU written by hand is `where(x > 0, x, exp(x) - 1)`. Where x is above 0 nobody reads the exp, but its range spans
those values too. With exp(min(x, 0)) each answer stays the same, to the bit: the two are alike where x is at most 0,
and elsewhere the other branch is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.export.by_hand import alike, operator

if TYPE_CHECKING:
    from torch.fx import Graph, Node

STEEP = ("exp", "exp2", "expm1", "sinh", "cosh", "pow", "log", "log2", "log10", "log1p", "reciprocal", "rsqrt")
"""Operators that make values of another magnitude, as does a computed divisor; other branches stay as they are."""


def bound_branches(graph: Graph) -> bool:
    """Bound the branches of every `where`, whose answers stay the same; return whether there was any to bound."""
    changed = [_bound(node) for node in graph.nodes if _compared(node)]
    return any(changed)


def _compared(node: Any) -> tuple[Node, float, bool] | None:
    """Return of a `where` the tensor that its condition compares, its limit, and whether the first branch needs less.

    None for other operators and other conditions.
    """
    if operator(node) != "where" or len(node.args) != 3:
        return None
    condition, less = node.args[0], True
    while operator(condition) in ("logical_not", "bitwise_not"):
        condition, less = condition.args[0], not less
    kind = operator(condition)
    if kind not in ("lt", "le", "gt", "ge"):
        return None
    tensor, limit = condition.args
    if not isinstance(limit, int | float) or not tensor.meta["val"].is_floating_point():
        return None
    return tensor, limit, less == (kind in ("lt", "le"))


def _bound(where: Node) -> bool:
    """Bound both branches of a `where`; return whether there was anything to bound."""
    compared = _compared(where)
    assert compared, "the caller asks for these only"
    tensor, limit, first_is_less = compared
    condition, *branches = where.args
    bounded = [
        _branch(where, branch, tensor, limit, less=less)
        for branch, less in zip(branches, (first_is_less, not first_is_less), strict=True)
    ]
    where.args = (condition, *bounded)
    return bounded != branches


def _branch(where: Node, branch: Any, tensor: Node, limit: float, *, less: bool) -> Any:
    """Return a copy of what computes the branch element by element, from the tensor held below or above the limit.

    The branch itself where it reads the tensor in no such way, or where nothing in between is steep.
    """
    import torch

    clamp, between = torch.ops.aten.clamp.default, _between(branch, tensor)
    if not any(map(_steep, between)):
        return branch
    graph = where.graph
    copies: dict[Node, Node] = {}
    with graph.inserting_before(where):
        held = graph.call_function(clamp, (tensor, None, limit) if less else (tensor, limit))
        held.meta = dict(tensor.meta)
        for node in graph.nodes:
            if node is where:
                break
            if alike(node, tensor):
                copies[node] = held
            elif node in between and any(source in copies for source in node.all_input_nodes):
                copies[node] = graph.node_copy(node, lambda source: copies.get(source, source))
    if branch not in copies:
        graph.erase_node(held)
    return copies.get(branch, branch)


def _between(branch: Any, tensor: Node) -> set[Node]:
    """Return the operators behind the branch that work element by element, up to the tensor."""
    import torch

    found: set[Node] = set()
    ahead = [branch]
    while ahead:
        node = ahead.pop()
        pointwise = torch.Tag.pointwise in getattr(getattr(node, "target", None), "tags", ())
        if pointwise and node not in found and not alike(node, tensor):
            found.add(node)
            ahead += node.all_input_nodes
    return found


def _steep(node: Node) -> bool:
    divisor = node.args[1] if operator(node) == "div" else None
    return operator(node) in STEEP or bool(operator(divisor))
