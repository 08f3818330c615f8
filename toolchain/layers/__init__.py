"""The layers of a file, in both formats alike: what has weights, by which name, and what it gives out."""
