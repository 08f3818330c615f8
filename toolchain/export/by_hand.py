"""Write what a model computes by hand with exp as torch's own operator: softplus, sigmoid, softmax and their relatives.

log(1 + exp(x)) is softplus(x), but the range of its exp leaves integers nothing else to hold. Of torch's operator each
converter makes a form whose values stay bounded. It differs in the last bits, and where the exp overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Graph, Node

_Form = tuple[str, tuple[Any, ...]]
"""An operator of ATen and its arguments."""


def operator(node: Any) -> str:
    """Return the name of a node's operator in ATen, `where` for `aten.where.self`, and nothing for other nodes."""
    packet = getattr(getattr(node, "target", None), "overloadpacket", None)
    return packet.__name__ if packet is not None else ""


def alike(one: Any, other: Any) -> bool:
    """Return whether two nodes are one, or the same operator on the same inputs, as x * 2 written twice."""
    if not operator(one) or one is other:
        return one is other
    return bool(one.target is getattr(other, "target", None) and one.args == other.args and one.kwargs == other.kwargs)


def use_own_operators(graph: Graph) -> bool:
    """Replace what is written by hand; return whether there was any."""
    changed = False
    for node in list(graph.nodes):
        rule = _RULES.get(operator(node))
        form = rule(node) if rule and node.meta["val"].is_floating_point() else None
        if form:
            name, arguments = form
            with graph.inserting_before(node):
                own = graph.call_function(_overload(name), arguments)
            own.meta = dict(node.meta)
            node.replace_all_uses_with(own)
            changed = True
    return changed


def _overload(name: str) -> Any:
    import torch

    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _of_exp(node: Any) -> Any:
    """Return x of exp(x), else None."""
    return node.args[0] if operator(node) == "exp" else None


def _of_one_plus_exp(node: Any) -> Any:
    """Return x of 1 + exp(x), else None."""
    one = operator(node) == "add" and not node.kwargs and node.args[1] == 1
    return _of_exp(node.args[0]) if one else None


def _of_minus_exp(node: Any) -> Any:
    """Return x of 1 + exp(-x), else None."""
    turned = _of_one_plus_exp(node)
    return turned.args[0] if operator(turned) == "neg" else None


def _log(node: Node) -> _Form | None:
    inner: Any = node.args[0]
    x = _of_one_plus_exp(inner)
    if x is not None:
        return "softplus.default", (x,)
    if operator(inner) == "add" and not inner.kwargs:
        terms = [_of_exp(term) for term in inner.args]
        return None if None in terms else ("logaddexp.default", tuple(terms))
    summed = _of_sum_of_exp(inner)
    return ("logsumexp.default", summed) if summed else None


def _log1p(node: Node) -> _Form | None:
    x = _of_exp(node.args[0])
    return None if x is None else ("softplus.default", (x,))


def _of_sum_of_exp(node: Any) -> tuple[Any, Any, bool] | None:
    """Return x, the axes and whether they are kept of sum(exp(x)), else None."""
    if operator(node) != "sum" or len(node.args) < 2 or node.kwargs or (x := _of_exp(node.args[0])) is None:
        return None
    return x, node.args[1], len(node.args) > 2 and node.args[2]


def _divided(node: Node) -> _Form | None:
    above, below = node.args[:2]
    if node.kwargs:
        return None
    if alike(_of_minus_exp(below), above):
        return "silu.default", (above,)
    x = _of_exp(above)
    if x is None:
        return None
    if alike(_of_one_plus_exp(below), x):
        return "sigmoid.default", (x,)
    summed = _of_sum_of_exp(below)
    if summed and alike(summed[0], x) and len(summed[1]) == 1 and summed[2]:
        return "softmax.int", (x, summed[1][0])
    return None


def _inverted(node: Node) -> _Form | None:
    x = _of_minus_exp(node.args[0])
    return None if x is None else ("sigmoid.default", (x,))


_RULES: dict[str, Callable[[Node], _Form | None]] = {
    "log": _log,
    "log1p": _log1p,
    "div": _divided,
    "reciprocal": _inverted,
}
