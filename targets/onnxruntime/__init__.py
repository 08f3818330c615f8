"""ONNX Runtime on this machine: its CPU kernels, CUDA, TensorRT and WebGPU, its profiler, and its files."""
