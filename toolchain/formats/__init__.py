"""Model files, one folder per format: what they contain, how they run, and edits that keep them valid."""
