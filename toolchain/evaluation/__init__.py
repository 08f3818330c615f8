"""Evaluations: what a file answered on labelled images, how fast, and two of them compared pair by pair."""
