"""Structured pruning: FloatModel in, FloatModel out."""

from toolchain.prune.structured import prune as prune  # heavy imports stay inside it
