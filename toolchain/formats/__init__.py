"""Model files, one folder a format: what stands in them, and edits that keep them valid."""
