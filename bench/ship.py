"""Make the weights that ship from what `train` saved: `python -m bench.ship cnn-deep.pt DIR:balanced`.

Writes `toolchain/models/weights/NAME.safetensors`, NAME being the model's: matrices in float16, all else in float32.
The file is read back and evaluated in float32 on the test split that the training was measured on; it holds the
accuracy after rounding. Prints the figures of the model card as Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from calibration.dataset import Dataset, chunks
from calibration.load import load as load_images
from targets.artifact import file_sha256
from toolchain import models
from toolchain.checkpoint.float_model import forward
from toolchain.checkpoint.load import load
from toolchain.core.quantities import percent_text
from toolchain.evaluation.metrics import Counts, confusion_matrix
from toolchain.models.saving import save
from toolchain.stats.share import wilson

WEIGHTS = Path(models.__file__).parent / "weights"
WORST, PAIRS = 9, 6


def ship(checkpoint: Path, data: str, out: Path | None = None) -> str:
    """Write the weights and return the figures of their card."""
    import torch

    facts = torch.load(checkpoint, weights_only=True)
    weights, trained, test = facts.pop("state_dict"), facts["test"], load_images(data, "test")
    if test.sha256 != trained["sha256"]:
        sys.exit(f"{checkpoint} was measured on other images than those of {data}; give the data of its training")
    module = models.build(facts["model"], classes=len(facts["classes"]), **facts["options"])
    module.load_state_dict(weights)
    out = out or WEIGHTS / f"{facts['model']}.safetensors"
    save(out, module, facts, half=True, force=True)
    matrix = _confusion(out, test)
    right = int(np.trace(matrix))
    facts |= {"accuracy": right / len(test), "test": trained | {"right": right, "accuracy": right / len(test)}}
    save(out, module, facts, half=True, force=True)
    return "\n".join(_card(out, matrix, trained, facts["classes"]))


def _confusion(path: Path, test: Dataset) -> Counts:
    model = load(str(path)).model
    run = forward(model)
    answers = [run(model.preprocess.apply(test.images[part])).argmax(axis=1) for part in chunks(len(test), 256)]
    return confusion_matrix(test.labels.astype(np.int64), np.concatenate(answers), len(test.classes))


def _card(out: Path, matrix: Counts, trained: dict[str, Any], classes: list[str]) -> Iterator[str]:
    right, images = int(np.trace(matrix)), int(matrix.sum())
    low, high = map(percent_text, wilson(right, images))
    yield f"`{out.name}`, {out.stat().st_size:,} bytes, sha256 `{file_sha256(out)}`"
    yield f"**{percent_text(right / images)}**: {right:,} of {images:,} images, 95 % Wilson interval {low} to {high}"
    yield f"before rounding: {trained['right']:,} right, {percent_text(trained['accuracy'])}"
    shares = np.diag(matrix) / matrix.sum(axis=1)
    yield ", ".join(f"{classes[k]} {percent_text(shares[k], 0)}" for k in np.argsort(shares, kind="stable")[:WORST])
    yield f"{np.sum(shares > 0.88)} of the {len(classes)} classes are above 88 %"
    both = np.triu(matrix + matrix.T, 1)
    yield f"| pair | mistaken for each other (of {images - right:,} errors) | of that |\n|---|---|---|"
    for position in np.argsort(-both, axis=None, kind="stable")[:PAIRS]:
        pair = divmod(int(position), len(classes))
        truth, answer = pair if matrix[pair] >= matrix[pair[::-1]] else pair[::-1]
        yield (
            f"| {classes[truth]} and {classes[answer]} | {both[pair]} | "
            f"{matrix[truth, answer]} {classes[truth]} read as {classes[answer]} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="what `glyphpress train` saved, a .pt")
    parser.add_argument("data", help="the data that it was trained on, such as emnist:balanced")
    parser.add_argument("-o", "--out", type=Path, help="another file than the one that ships")
    arguments = parser.parse_args()
    print(ship(arguments.checkpoint, arguments.data, arguments.out))
