"""What targets need of this machine: its state, the clock, fresh processes, GPU adapters, caches and text."""
