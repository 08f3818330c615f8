"""The verbs of glyphpress: each takes a request and returns a result. Only these know both the press and the gate."""
