"""What every other part of the toolchain stands on."""
