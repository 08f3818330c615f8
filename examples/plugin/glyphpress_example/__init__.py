"""One plug-in of each kind for glyphpress; `pyproject.toml` says which name leads to which object."""
