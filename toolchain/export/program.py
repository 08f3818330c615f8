"""Save a FloatModel as a torch.export program (.pt2), which keeps the shapes of a pruned model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from targets.artifact import file_sha256
from toolchain.checkpoint.float_model import FloatModel
from toolchain.checkpoint.metadata import METADATA_KEY
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.core.files import whole_file


def save_program(model: FloatModel, path: Path, *, compared: dict[str, Any] | None = None, force: bool = False) -> str:
    """Write the model with a dynamic batch, its classes, preprocess and history, and return the file's SHA-256.

    compared: its comparison with the model that it was made from, as JSON types.

    Raises StageError when torch.export refuses the model.
    """
    import torch

    module = model.torch_module("saving a .pt2")
    facts = {
        "classes": model.classes,
        "preprocess": model.preprocess.to_dict(),
        "history": model.history,
        **({"compared": compared} if compared else {}),
        "input_ranges": [[limits.low, limits.high] for limits in model.input_ranges],
        "checkpoint_sha256": model.root_sha256,
    }
    # Through memory: on a full disk torch's own writer aborts the process.
    content = io.BytesIO()
    try:
        with output_to_log() as log:
            batch = torch.export.Dim("batch")
            program = torch.export.export(module, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=({0: batch},))
            torch.export.save(program, content, extra_files={METADATA_KEY: json.dumps(facts)})
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"{model.name}: torch cannot save it as .pt2 ({reason}); details are in {log}") from error
    with whole_file(path, force=force) as part:
        part.write_bytes(content.getvalue())
    return file_sha256(path)
