"""Write small files in the form NIST publishes, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.dataset import Images, Labels
from calibration.idx import write_idx
from calibration.splits import SPLITS


def write_split(
    folder: Path, name: str, split: str, images: Images, labels: Labels, *, suffix: str = ".gz", mapping: bool = True
) -> None:
    """Store upright images and labels from 0 as NIST does: transposed, with the split's label offset."""
    table = SPLITS[name]
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"emnist-{name}-{split}"
    write_idx(Path(f"{stem}-images-idx3-ubyte{suffix}"), np.ascontiguousarray(images.swapaxes(1, 2)))
    write_idx(Path(f"{stem}-labels-idx1-ubyte{suffix}"), (labels + table.label_offset).astype(np.uint8))
    if mapping:
        lines = [f"{index + table.label_offset} {ord(char)}" for index, char in enumerate(table.classes)]
        (folder / f"emnist-{name}-mapping.txt").write_text("\n".join(lines) + "\n")


def strokes(count: int, seed: int = 0) -> Images:
    """Return different images without symmetry, so that no turn of one is itself."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
