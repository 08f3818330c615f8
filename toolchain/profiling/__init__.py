"""Profiling: latency, operators, memory and instructions of artifacts on their targets."""
