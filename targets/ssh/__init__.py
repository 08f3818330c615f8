"""Boards behind ssh: the agent is put there once, artifacts once by digest, and everything is run and timed there."""
