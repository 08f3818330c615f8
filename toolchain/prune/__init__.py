"""Pruning: FloatModel in, FloatModel out."""

# Heavy imports stay inside them.
from toolchain.prune.sensitivity import Sensitivity as Sensitivity
from toolchain.prune.sensitivity import sensitivity as sensitivity
from toolchain.prune.stage import planned as planned
from toolchain.prune.stage import prune as prune
from toolchain.prune.unstructured import baked as baked
from toolchain.prune.unstructured import zeros_kept as zeros_kept
