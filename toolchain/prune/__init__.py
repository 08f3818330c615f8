"""Pruning: FloatModel in, FloatModel out."""

from toolchain.prune.stage import prune as prune  # heavy imports stay inside it
