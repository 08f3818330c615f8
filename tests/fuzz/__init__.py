"""Damaged files of every kind that glyphpress reads: it must refuse each with one line, or read what is still whole.

`python -m tests.fuzz` (`make fuzz`) is the long run, `test_readers.py` the short one.
"""
