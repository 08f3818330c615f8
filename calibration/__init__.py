"""The images: EMNIST and other glyph data sets, calibration sets drawn from them, and scans turned into glyphs."""
