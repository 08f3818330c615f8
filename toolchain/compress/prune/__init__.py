"""Pruning: FloatModel in, FloatModel out."""

# Heavy imports stay inside them.
from toolchain.compress.prune.sensitivity import Sensitivity as Sensitivity
from toolchain.compress.prune.sensitivity import sensitivity as sensitivity
from toolchain.compress.prune.stage import planned as planned
from toolchain.compress.prune.stage import prune as prune
from toolchain.compress.prune.unstructured import baked as baked
from toolchain.compress.prune.unstructured import zeros_kept as zeros_kept
