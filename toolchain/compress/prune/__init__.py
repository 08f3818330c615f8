"""Pruning of channels and of single weights, and the sensitivity of layers to it."""
