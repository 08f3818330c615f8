"""LiteRT (TensorFlow Lite) on this machine: its CPU kernels, its GPU accelerator, and its profiler."""
