"""Emulated arm64 processors: the agent in a root folder of Debian, run by QEMU's user mode, counted by a TCG plugin."""
