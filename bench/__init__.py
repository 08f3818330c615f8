"""The numbers of README, measured through the public API; what was measured stays in `results/`."""
