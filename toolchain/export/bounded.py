"""Rewrite torch.export programs so that their intermediate values stay bounded, and integers can hold them later.

Activations: the usual lowering of softplus is `where(x > 20, x, log1p(exp(x)))`. The range of its integers then spans
the exp of the branch that is not taken, which leaves no precision for the rest. `bounded_forms` has forms without it.

Hand-written formulas, such as log(1 + exp(x)), are replaced by torch's own operator (softplus, sigmoid, softmax and
their relatives), of which each converter makes a bounded form. Answers differ in the last bits, and where the exp
overflows.

Branches of `where`: an ELU written by hand is `where(x > 0, x, exp(x) - 1)`. Above 0 the exp is not used, but
its range spans those values too. With exp(min(x, 0)) every answer stays the same to the bit: both forms are equal where
x is at most 0, and elsewhere the other branch is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import Graph, Node

_Form = tuple[str, tuple[Any, ...]]
"""An operator of ATen and its arguments."""
_THRESHOLD_FELT = 15.0
"""Above this value softplus(x) is almost x in float32, so a larger threshold is left out."""
_STEEP = ("exp", "exp2", "expm1", "sinh", "cosh", "pow", "log", "log2", "log10", "log1p", "reciprocal", "rsqrt")
"""Operators whose result has another magnitude than their input, as has a division by a computed divisor. Only branches
that contain one are bounded.
"""


@contextmanager
def programs_changed(change: Callable[[ExportedProgram], ExportedProgram]) -> Iterator[None]:
    """Apply `change` to every program that `torch.export.export` returns inside the block.

    Converters call it themselves: given a program in place of the module, they would lose the names of its layers.
    """
    import torch

    original: Callable[..., ExportedProgram] = torch.export.export
    with patch("torch.export.export", lambda *args, **kwargs: change(original(*args, **kwargs))):
        yield


def bounded(program: ExportedProgram) -> ExportedProgram:
    """Return the program with its formulas and branches rewritten."""
    if not any(operator(node) in ("exp", "where") for node in program.graph.nodes):
        return program
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in program.graph.nodes):
        # The rewrites read a value again, so no operator may change one in place.
        program = program.run_decompositions({})
    if _use_operators_of_torch(program.graph) | _bound_branches(program.graph):
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
    return program


def operator(node: Any) -> str:
    """Return the name of a node's ATen operator, such as `where` for `aten.where.self`; empty for other nodes."""
    packet = getattr(getattr(node, "target", None), "overloadpacket", None)
    return packet.__name__ if packet is not None else ""


def _same_value(first: Any, second: Any) -> bool:
    """Return whether two arguments are the same node, or the same operator on the same inputs (x * 2 written twice)."""
    if not operator(first) or first is second:
        return first is second
    same_target = first.target is getattr(second, "target", None)
    return bool(same_target and first.args == second.args and first.kwargs == second.kwargs)


def _use_operators_of_torch(graph: Graph) -> bool:
    """Replace hand-written formulas by torch's operators; return whether there were any."""
    import torch

    changed = False
    for node in list(graph.nodes):
        rule = _RULES.get(operator(node))
        form = rule(node) if rule and node.meta["val"].is_floating_point() else None
        if form:
            name, arguments = form
            with graph.inserting_before(node):
                replacement = graph.call_function(attrgetter(name)(torch.ops.aten), arguments)
            replacement.meta = dict(node.meta)
            node.replace_all_uses_with(replacement)
            changed = True
    return changed


def _argument_of_exp(node: Any) -> Any:
    """Return x of exp(x), else None."""
    return node.args[0] if operator(node) == "exp" else None


def _argument_of_one_plus_exp(node: Any) -> Any:
    """Return x of exp(x) + 1, else None."""
    adds_one = operator(node) == "add" and not node.kwargs and node.args[1] == 1
    return _argument_of_exp(node.args[0]) if adds_one else None


def _argument_of_one_plus_exp_minus(node: Any) -> Any:
    """Return x of exp(-x) + 1, else None."""
    negated = _argument_of_one_plus_exp(node)
    return negated.args[0] if operator(negated) == "neg" else None


def _arguments_of_sum_of_exp(node: Any) -> tuple[Any, Any, bool] | None:
    """Return x, the axes, and whether they are kept, of sum(exp(x)), else None."""
    if operator(node) != "sum" or len(node.args) < 2 or node.kwargs or (x := _argument_of_exp(node.args[0])) is None:
        return None
    return x, node.args[1], len(node.args) > 2 and node.args[2]


def _log_form(node: Node) -> _Form | None:
    inner: Any = node.args[0]
    x = _argument_of_one_plus_exp(inner)
    if x is not None:
        return "softplus.default", (x,)
    if operator(inner) == "add" and not inner.kwargs:
        terms = [_argument_of_exp(term) for term in inner.args]
        return None if None in terms else ("logaddexp.default", tuple(terms))
    summed = _arguments_of_sum_of_exp(inner)
    return ("logsumexp.default", summed) if summed else None


def _log1p_form(node: Node) -> _Form | None:
    x = _argument_of_exp(node.args[0])
    return None if x is None else ("softplus.default", (x,))


def _division_form(node: Node) -> _Form | None:
    dividend, divisor = node.args[:2]
    if node.kwargs:
        return None
    if _same_value(_argument_of_one_plus_exp_minus(divisor), dividend):
        return "silu.default", (dividend,)
    x = _argument_of_exp(dividend)
    if x is None:
        return None
    if _same_value(_argument_of_one_plus_exp(divisor), x):
        return "sigmoid.default", (x,)
    summed = _arguments_of_sum_of_exp(divisor)
    if summed and _same_value(summed[0], x) and len(summed[1]) == 1 and summed[2]:
        return "softmax.int", (x, summed[1][0])
    return None


def _reciprocal_form(node: Node) -> _Form | None:
    x = _argument_of_one_plus_exp_minus(node.args[0])
    return None if x is None else ("sigmoid.default", (x,))


_RULES: dict[str, Callable[[Node], _Form | None]] = {
    "log": _log_form,
    "log1p": _log1p_form,
    "div": _division_form,
    "reciprocal": _reciprocal_form,
}


def _bound_branches(graph: Graph) -> bool:
    """Bound the branches of every `where`, whose answers stay the same; return whether there was any to bound."""
    changed = [_bound(node) for node in graph.nodes if _compared(node)]
    return any(changed)


def _compared(node: Any) -> tuple[Node, float, bool] | None:
    """Return of a `where` the tensor that its condition compares, the limit, and whether branch 1 is taken below it.

    None for other operators and other conditions.
    """
    if operator(node) != "where" or len(node.args) != 3:
        return None
    condition, below = node.args[0], True
    while operator(condition) in ("logical_not", "bitwise_not"):
        condition, below = condition.args[0], not below
    comparison = operator(condition)
    if comparison not in ("lt", "le", "gt", "ge"):
        return None
    tensor, limit = condition.args
    if not isinstance(limit, int | float) or not tensor.meta["val"].is_floating_point():
        return None
    return tensor, limit, below == (comparison in ("lt", "le"))


def _bound(where: Node) -> bool:
    """Bound both branches of a `where`; return whether there was anything to bound."""
    compared = _compared(where)
    assert compared, "the caller passes only those"
    tensor, limit, first_below = compared
    condition, *branches = where.args
    bounded = [
        _bounded_branch(where, branch, tensor, limit, below=below)
        for branch, below in zip(branches, (first_below, not first_below), strict=True)
    ]
    where.args = (condition, *bounded)
    return bounded != branches


def _bounded_branch(where: Node, branch: Any, tensor: Node, limit: float, *, below: bool) -> Any:
    """Return a copy of the operators that compute `branch`, on the tensor clamped to below or above the limit.

    Returns `branch` itself where it does not depend on the tensor element by element, or no operator is steep.
    """
    import torch

    clamp, between = torch.ops.aten.clamp.default, _operators_between(branch, tensor)
    if not any(map(_steep, between)):
        return branch
    graph = where.graph
    copies: dict[Node, Node] = {}
    with graph.inserting_before(where):
        clamped = graph.call_function(clamp, (tensor, None, limit) if below else (tensor, limit))
        clamped.meta = dict(tensor.meta)
        for node in graph.nodes:
            if node is where:
                break
            if _same_value(node, tensor):
                copies[node] = clamped
            elif node in between and any(source in copies for source in node.all_input_nodes):
                copies[node] = graph.node_copy(node, lambda source: copies.get(source, source))
    if branch not in copies:
        graph.erase_node(clamped)
    return copies.get(branch, branch)


def _operators_between(branch: Any, tensor: Node) -> set[Node]:
    """Return the element-wise operators between the tensor and the branch that they compute."""
    import torch

    operators: set[Node] = set()
    pending = [branch]
    while pending:
        node = pending.pop()
        pointwise = torch.Tag.pointwise in getattr(getattr(node, "target", None), "tags", ())
        if pointwise and node not in operators and not _same_value(node, tensor):
            operators.add(node)
            pending += node.all_input_nodes
    return operators


def _steep(node: Node) -> bool:
    divisor = node.args[1] if operator(node) == "div" else None
    return operator(node) in _STEEP or bool(operator(divisor))


def bounded_forms() -> dict[Any, Callable[..., Any]]:
    """Return the bounded form of each of torch's operators that needs one, for `run_decompositions`."""
    import torch

    aten = torch.ops.aten
    return {
        aten.softplus.default: softplus,
        aten.mish.default: mish,
        aten.elu.default: elu,
        aten.selu.default: selu,
        aten.celu.default: celu,
        aten.log_sigmoid.default: log_sigmoid,
        aten.logaddexp.default: logaddexp,
        aten.logsumexp.default: logsumexp,
        aten.rrelu_with_noise_functional.default: rrelu,
    }


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Return log(1 + exp(beta x)) / beta, and x where beta x is above the threshold."""
    scaled = x * beta if beta != 1 else x
    rest = _log_sigmoid_of_magnitude(scaled)
    if threshold < _THRESHOLD_FELT:
        rest = rest * (scaled <= threshold)
    total = scaled.relu() - rest
    return total / beta if beta != 1 else total


def mish(x: Tensor) -> Tensor:
    """Return x tanh(softplus(x))."""
    return x * softplus(x).tanh()


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """Return scale x above 0, and scale alpha (exp(input_scale x) - 1) below."""
    below = (x.clamp(max=0) * input_scale).expm1() * (scale * alpha)
    return x.relu() * scale + below


def selu(x: Tensor) -> Tensor:
    """Return ELU with the two constants that keep mean and variance."""
    return elu(x, 1.6732632423543772, 1.0507009873554805)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return ELU whose slope is continuous for each alpha."""
    return elu(x, alpha, 1.0, 1 / alpha)


def rrelu(
    x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_settings: Any
) -> tuple[Tensor, Tensor]:
    """Return a leaky ReLU of the mean slope, which is RReLU outside training, and the unused noise."""
    from torch.nn.functional import leaky_relu

    return leaky_relu(x, (lower + upper) / 2), noise


def log_sigmoid(x: Tensor) -> Tensor:
    """Return -softplus(-x)."""
    return -softplus(-x)


def logaddexp(first: Tensor, second: Tensor) -> Tensor:
    """Return log(exp(first) + exp(second)) of finite values."""
    import torch

    return torch.maximum(first, second) - _log_sigmoid_of_magnitude(first - second)


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """Return log(sum(exp(x))) of finite values."""
    largest = x.amax(dim, keepdim=True)
    total = (x - largest).exp().sum(dim, keepdim=True).log() + largest
    return total if keepdim else total.squeeze(dim)


def _log_sigmoid_of_magnitude(x: Tensor) -> Tensor:
    """Return -log(1 + exp(-|x|)), at most 0.

    log1p would add 1 to at most 1. LiteRT takes the scales of that sum for powers of two, and its 16-bit ADD then
    refuses the file.
    """
    return x.abs().sigmoid().log()
