"""FloatModel to a float Artifact."""
