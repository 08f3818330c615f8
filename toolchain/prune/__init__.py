"""Structured pruning: FloatModel in, FloatModel out."""
