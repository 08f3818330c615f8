"""Emulated arm64 processors: the agent in a Debian root folder under QEMU's user mode, counted by a TCG plugin."""
