"""Fold batch norms into the convolutions before them, as every exporter does in the end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from toolchain.core.errors import StageError

if TYPE_CHECKING:
    from torch import nn

    from toolchain.checkpoint.float_model import FloatModel


def folded(model: FloatModel, stage: str) -> nn.Module:
    """Return a copy of the model's module, in eval mode, whose batch norms after convolutions became identities.

    Its outputs stay the same but for rounding. Raises StageError, naming `stage`, when the model is not in torch
    or torch.fx cannot trace it.
    """
    from torch import fx, nn
    from torch.nn.utils import fuse_conv_bn_eval

    module = copy.deepcopy(model.torch_module(stage)).eval()
    try:
        graph = fx.symbolic_trace(module).graph
    except (fx.proxy.TraceError, RuntimeError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StageError(
            f"{model.name}: torch.fx cannot trace it for {stage} ({reason}); leave that step out"
        ) from error
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = (module.get_submodule(str(each.target)) for each in (node, before))
        unshared = len(before.users) == 1 and all(calls.count(str(each.target)) == 1 for each in (node, before))
        if unshared and isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            module.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(str(node.target), nn.Identity())
    return module
