"""Cross-layer equalization: FloatModel in, FloatModel out."""

from toolchain.equalize.crosslayer import equalize as equalize  # heavy imports stay inside it
