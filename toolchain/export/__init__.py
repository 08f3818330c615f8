"""Export a FloatModel: to a float artifact, checked to give the model's answers, or to a torch program (.pt2)."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import Images
from calibration.load import load
from targets import catalog
from targets.artifact import Artifact, Format, file_sha256
from toolchain.checkpoint.float_model import FloatModel, forward
from toolchain.checkpoint.metadata import METADATA_KEY
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import ParityError, StageError
from toolchain.core.files import whole_file
from toolchain.core.versions import tool_versions
from toolchain.formats.write_artifact import Origin, write_artifact


@dataclass(frozen=True)
class Exporter:
    """How a float file of one format is made.

    function: "module:function"; takes the model, the path to write and the file for the converter's output.
    packages: those whose versions the sidecar records. module: a module that it needs and not every machine has.
    missing: the message where that is not installed. takes_onnx: whether it writes an `OnnxModel` from its graph,
    without torch.
    """

    function: str
    packages: tuple[str, ...]
    module: str = ""
    missing: str = ""
    takes_onnx: bool = False

    def convert(self, model: FloatModel, path: Path, log: Path | None) -> None:
        """Write the file; raises StageError when the converter refuses the model, PackageMissing without it."""
        module, _, name = self.function.partition(":")
        write: Callable[[FloatModel, Path, Path | None], None] = getattr(import_module(module), name)
        write(model, path, log)


EXPORTERS: dict[Format, Exporter] = {
    "onnx": Exporter("toolchain.export.onnx:write_onnx", ("torch", "onnx", "onnxscript"), takes_onnx=True),
    "tflite": Exporter(
        "toolchain.export.tflite:write_tflite",
        ("torch", "litert-torch"),
        module="litert_torch",
        missing="litert-torch has no wheels for this machine; press on x86-64 for it",
    ),
}
"""Format -> exporter. Files of other formats are converted from a file, as an .ort is from an .onnx."""
TOLERANCE = 1e-4
"""Allowed difference between the logits of a float file and its model, as a share of the largest logit (at least 1)."""
ROUNDINGS = 4
"""A difference of this many times the model's own float32 error is allowed too: a converter adds in another order."""


def installed_formats() -> tuple[Format, ...]:
    """Return the formats that can be exported on this machine."""
    return tuple(name for name, exporter in EXPORTERS.items() if not exporter.module or find_spec(exporter.module))


def export(
    model: FloatModel, kind: Format, path: Path, *, recipe: str = "float", force: bool = False, log: Path | None = None
) -> Artifact:
    """Convert the model to `kind`, check the file against it on 256 images, and write it with its sidecar.

    log: takes the converter's output. Raises StageError when the converter refuses the model, ParityError when the
    file's logits differ from the model's by more than 1e-4 of the largest logit (or of 1) and more than float32 rounds,
    and PackageMissing when the converter is not installed.
    """
    exporter = EXPORTERS[kind]
    images = reference_images()
    # Before the conversion, which may move the weights out of memory.
    expected = reference_logits(model, images)
    origin = Origin(
        model.preprocess,
        model.classes,
        recipe,
        model.checkpoint_sha256,
        tool_versions(*exporter.packages),
        notes=model.history,
        checkpoint_sha256=model.root_sha256,
    )

    def check(artifact: Artifact) -> None:
        check_parity(artifact, expected, images, lambda: _rounding_error(model, images, expected))

    return write_artifact(path, origin, lambda part: exporter.convert(model, part, log), force=force, check=check)


def reference_images() -> Images:
    """Return the images on which files are compared with their models: the first 256 of the built-in digits."""
    return load("builtin:digits", "train").images[:256]


def reference_logits(model: FloatModel, images: Images) -> NDArray[np.float32]:
    """Return the model's own logits, float32 [N, classes], for uint8 [N, 28, 28]."""
    first = model.preprocess.label_offset
    return forward(model)(model.preprocess.apply(images))[:, first : first + len(model.classes)]


def allowed_difference(expected: NDArray[np.float32]) -> float:
    """Return by how much logits may differ from the expected ones; float32 rounds large ones more than small ones."""
    return TOLERANCE * max(1.0, float(np.abs(expected).max()))


def check_parity(
    artifact: Artifact, expected: NDArray[np.float32], images: Images, rounding_error: Callable[[], float] | None = None
) -> None:
    """Raise ParityError when the file's logits on `images` differ by more than TOLERANCE and the rounding error allow.

    rounding_error: returns the error of the model's own float32 logits; called only where it matters.
    """
    with catalog.default_for(artifact.format).open(artifact) as session:
        worst = float(np.abs(session.run(images) - expected).max())
    if not worst < (allowed := allowed_difference(expected)) and rounding_error:
        allowed = max(allowed, ROUNDINGS * rounding_error())
    if not worst < allowed:
        largest = float(np.abs(expected).max())
        raise ParityError(
            f"{artifact.path.name}: its logits differ from the model's by {worst:.2g} on {len(images)} images, where "
            f"{allowed:.2g} is allowed (the largest logit is {largest:.3g}), so the file computes something "
            "else; export the other format, or change the layer that the converter gets wrong"
        )


def _rounding_error(model: FloatModel, images: Images, logits: NDArray[np.float32]) -> float:
    """Return the largest difference of the model's logits from those in float64; 0 where it cannot run in float64."""
    import torch

    if model.module is None:
        return 0.0
    first, pixels = model.preprocess.label_offset, model.preprocess.apply(images).astype(np.float64)
    try:
        with torch.no_grad():
            exact = copy.deepcopy(model.module).double()(torch.from_numpy(pixels)).numpy()
    except Exception:  # noqa: BLE001 (a user's forward may insist on float32 in any way)
        return 0.0
    error = float(np.abs(exact[:, first : first + len(model.classes)] - logits).max())
    return error if np.isfinite(error) else 0.0


def save_program(model: FloatModel, path: Path, *, compared: dict[str, Any] | None = None, force: bool = False) -> str:
    """Write the model as a torch.export program, and return the file's SHA-256.

    Unlike weights alone, a program keeps the shapes of a pruned model. Its batch is dynamic; classes, preprocess and
    history are stored in it. compared: the comparison with the model that it was made from, as JSON types. Raises
    StageError when torch.export refuses the model.
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
