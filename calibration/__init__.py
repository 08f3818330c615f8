"""Images: EMNIST and other data sets of glyphs, calibration sets drawn from them, and scans turned into glyphs."""
