"""ONNX files (.onnx)."""
