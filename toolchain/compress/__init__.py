"""Compression of float models: FloatModel in, FloatModel out."""
