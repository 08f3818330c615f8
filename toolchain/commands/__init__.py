"""The verbs of glyphpress, one a file: a request in, a result out. Only these know both the press and the gate."""
