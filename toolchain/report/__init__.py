"""A Report as table, JSON and Markdown."""
