"""The numbers of README and docs, measured through the public API; what was measured stays in `results/`."""
