"""Convert a checkpoint to one model file."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from calibration.dataset import Dataset
from calibration.load import load_or_why
from targets.artifact import Artifact
from targets.metadata import explained, load_artifact
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.core.files import refuse_existing, refuse_source
from toolchain.export import EXPORTERS, export
from toolchain.export.ort_format import export_ort, operators_path
from toolchain.formats import catalog as formats
from toolchain.formats.write_artifact import refuse_model


def export_checkpoint(
    checkpoint: str,
    request: CheckpointRequest,
    output: Path,
    *,
    data: str | None = None,
    ops_config: bool = False,
    this_cpu: bool = False,
    context: RunContext,
) -> Artifact:
    """Convert a checkpoint to the format of the suffix of `output`, or an .onnx artifact to .ort.

    ops_config, this_cpu: for an .ort only, see `export_ort`. Raises what `settle`, `export` and `export_ort` raise, and
    UsageProblem for an unknown suffix, or one of the two options with another format.
    """
    output_format = formats.of(output)
    exported = [other for other in formats.formats() if other.parent or other.name in EXPORTERS]
    if output_format not in exported:
        reason = f"{output_format.title} files cannot be exported" if output_format else f"{output} names no format"
        raise UsageProblem(f"{reason}; let it end in {formats.suffixes(exported, 'or')}")
    assert output_format is not None, "no format is in no list"
    refuse_source(output, Path(checkpoint))
    refuse_model(output, force=context.force)
    if not output_format.parent and (ops_config or this_cpu):
        option = "--ops-config" if ops_config else "--this-cpu"
        converted = formats.suffixes((file_format for file_format in formats.formats() if file_format.parent), "and")
        raise UsageProblem(f"{option} is for {converted} files, and {output.name} is none; leave it out")
    if output_format.parent:
        if ops_config:
            refuse_existing(operators_path(output), force=context.force)
        with tempfile.TemporaryDirectory() as folder:
            source = onnx_artifact(checkpoint, *labelled(request, data, context.data_root), Path(folder), context.seed)
            return export_ort(source, output, ops_config=ops_config, fitted=this_cpu, force=context.force)
    settled = settle(checkpoint, *labelled(request, data, context.data_root), seed=context.seed)
    return export(settled.model, output_format.name, output, force=context.force)


def onnx_artifact(
    checkpoint: str, request: CheckpointRequest, train: Dataset | None, folder: Path, seed: int
) -> Artifact:
    """Return the checkpoint as an .onnx artifact, converted in `folder` unless it is one."""
    path = Path(checkpoint)
    file_format = formats.of(path)
    if file_format and file_format.loads and path.is_file() and explained(path):
        return load_artifact(path)
    settled = settle(checkpoint, request, train, seed=seed)
    return export(settled.model, "onnx", folder / f"{settled.model.name}.onnx")


def labelled(
    request: CheckpointRequest, data: str | None, data_root: Path | None
) -> tuple[CheckpointRequest, Dataset | None]:
    """Return the train split, or the request with the classes of the test split where there is only that."""
    if data is None:
        return request, None
    train = load_or_why(request.data(data), "train", data_root)
    if isinstance(train, Dataset):
        return request, train
    test = load_or_why(request.data(data), "test", data_root)
    if not isinstance(test, Dataset):
        raise train
    return replace(request, classes=test.classes), None
