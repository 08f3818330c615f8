"""Boards behind ssh: agent and artifacts are pushed there once; everything runs and is timed there."""
