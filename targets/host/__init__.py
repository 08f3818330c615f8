"""This machine: its state, the CPU load of other processes, pinning, the clock, GPU adapters and caches."""
