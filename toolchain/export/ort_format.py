"""Convert an ONNX artifact to .ort, ONNX Runtime's own format, for builds with only the operators of the file."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from targets import catalog
from targets.artifact import Artifact
from targets.errors import in_one_line
from targets.onnxruntime.cpu import SCALES_KEY
from targets.onnxruntime.onnx_file import append
from toolchain.core.converter_log import output_to_log
from toolchain.core.errors import StageError
from toolchain.export import check_parity, reference_images
from toolchain.formats import catalog as formats
from toolchain.formats.write_artifact import Origin, write_artifact

PORTABLE = (
    "for any processor: without the layout of x86's float convolutions (NCHWc), which no other processor can read; "
    "on x86 float convolutions take longer for it, int8 ones do not"
)
FITTED = "has the float convolutions in the layout of the processor that made it; only processors like it can read it"
UNPACKED = (
    "its weights are unpacked: {:,} bytes where the .onnx has {:,}; an .onnx is unpacked only when it is opened, "
    "so ship the .onnx where size counts"
)
GROWN = 1.25
"""An .ort that is larger than the .onnx by this factor has unpacked weights; its graph alone adds less."""


def export_ort(
    artifact: Artifact, path: Path, *, ops_config: bool = False, fitted: bool = False, force: bool = False
) -> Artifact:
    """Convert an .onnx artifact, check that the .ort gives the same answers on 256 images, and write it with a sidecar.

    ops_config: also write the list of operators and types that it needs (`operators_path`), for a build of ONNX Runtime
    with `--minimal_build --include_ops_by_config FILE --enable_reduced_operator_type_support`. fitted: keep the layout
    of this processor's float convolutions. The optimized graph itself is stored (style Fixed of onnxruntime.tools): the
    optimizations that style Runtime stores are applied only by sessions that ask for them, and include no layout.
    Raises StageError when onnxruntime cannot convert the file, and ParityError when the answers differ.
    """
    images = reference_images()
    with catalog.default_for(artifact.format).open(artifact) as session:
        expected = session.run(images).astype(np.float32)
    notes = (*artifact.notes, FITTED if fitted else PORTABLE)
    origin = Origin.of(artifact, artifact.recipe, "onnxruntime", calibration=artifact.calibration, notes=notes)
    with tempfile.TemporaryDirectory() as folder:
        content, operators = _converted(artifact, origin, Path(folder), platform="amd64" if fitted else None)
        # onnxruntime writes its own temporary path into the list.
        listed = operators.replace(str(content.resolve()), path.name)
        if (size := content.stat().st_size) > GROWN * artifact.size:
            origin = replace(origin, notes=(*notes, UNPACKED.format(size, artifact.size)))
        beside = {operators_path(path): listed} if ops_config else None
        return write_artifact(
            path,
            origin,
            partial(shutil.copyfile, content),
            force=force,
            check=lambda converted: check_parity(converted, expected, images),
            beside=beside,
        )


def operators_path(path: Path) -> Path:
    """Return the path of the list of required operators: `model.required_operators.config` beside `model.ort`."""
    return path.with_suffix(".required_operators.config")


def _converted(artifact: Artifact, origin: Origin, folder: Path, *, platform: str | None) -> tuple[Path, str]:
    """Return the path of the .ort file, made in `folder`, and the text of its list of operators."""
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    source = folder / "model.onnx"
    shutil.copyfile(artifact.path, source)
    # onnxruntime copies it into the metadata of the .ort file.
    formats.get(artifact.format).embed(source, origin.facts())
    _embed_scales(source, artifact)
    try:
        with output_to_log() as log_file:
            convert_onnx_models_to_ort(
                source,
                optimization_styles=[OptimizationStyle.Fixed],
                target_platform=platform,
                enable_type_reduction=True,
            )
    except Exception as error:
        # onnxruntime's exceptions share no base.
        raise StageError(
            f"{artifact.path.name}: onnxruntime cannot convert it to .ort ({in_one_line(error)}); "
            f"the converter's whole output is in {log_file}"
        ) from error
    operators = source.with_suffix(".required_operators_and_types.config").read_text(encoding="utf-8")
    return source.with_suffix(".ort"), operators


def _embed_scales(source: Path, artifact: Artifact) -> None:
    """Append the scales and zero points of integer inputs and outputs to the metadata, which an .ort does not show."""
    from onnx import ModelProto, StringStringEntryProto

    tensors = (*artifact.inputs, *artifact.outputs)
    scales = {spec.name: (spec.scale, spec.zero_point) for spec in tensors if "float" not in spec.dtype}
    if scales:
        entry = StringStringEntryProto(key=SCALES_KEY, value=json.dumps(scales))
        append(source, ModelProto(metadata_props=[entry]))
