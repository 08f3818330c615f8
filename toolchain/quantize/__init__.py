"""Float Artifact and CalibrationSet to a quantized Artifact."""
