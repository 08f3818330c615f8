"""ONNX Runtime on this machine: CPU kernels, CUDA, TensorRT and WebGPU, the profiler, and .onnx and .ort files."""
