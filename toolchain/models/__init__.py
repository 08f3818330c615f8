"""Reference architectures, one a file."""
