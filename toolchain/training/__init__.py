"""Training and fine-tuning of torch models."""
