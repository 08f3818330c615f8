"""Places where an artifact runs: what is there, what it answers and what an inference costs there."""
