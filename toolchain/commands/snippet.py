"""Writes a complete program that reads pictures with one model file and without glyphpress.

It opens this very file, prepares a picture as its sidecar says, and prints the character. The preparation is the
source of `calibration/glyph.py` itself, so that both see the same pixels.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from calibration import glyph
from calibration.dataset import SIDE
from targets.artifact import Artifact, Format
from targets.host.runtime_session import TensorCodec, codecs_of, input_and_output
from targets.preprocess import Orientation
from toolchain.core.errors import UsageProblem

LANGUAGES: dict[str, tuple[Format, str, str]] = {
    "python-onnx": ("onnx", "onnxruntime", "import onnxruntime"),
    "python-litert": ("tflite", "ai-edge-litert", "from ai_edge_litert.interpreter import Interpreter"),
}
"""What a program can be written for -> the format that it opens, the package that runs it, and its import."""
OWN_IMPORTS = ("import hashlib", "import sys", "from pathlib import Path")
TURNS: dict[Orientation, str] = {
    "upright": "",
    "mirror": "[:, :, ::-1]",
    "flip": "[:, ::-1, :]",
    "rot180": "[:, ::-1, ::-1]",
    "transpose": ".swapaxes(1, 2)",
    "rot90": ".swapaxes(1, 2)[:, ::-1, :]",
    "rot270": ".swapaxes(1, 2)[:, :, ::-1]",
    "anti-transpose": ".swapaxes(1, 2)[:, ::-1, ::-1]",
}
"""Turn of upright images [N, 28, 28] -> its expression."""


def snippet(artifact: Artifact, language: str | None = None) -> str:
    """Return the program's text. language: by default the one for the file's format.

    Raises UsageProblem for a language that takes other files, and RunFailed for a file without an image input.
    """
    fits = [name for name, (kind, *_) in LANGUAGES.items() if kind == artifact.format]
    if language not in fits and (language or not fits):
        advice = f"give --for {fits[0]}" if fits else "give the .onnx that it was made of"
        raise UsageProblem(
            f"{language or 'a program'} opens no .{artifact.format} such as {artifact.path.name}; {advice}"
        )
    _, package, runtime = LANGUAGES[language or fits[0]]
    source, sink, index = input_and_output(artifact, *codecs_of(artifact))
    imports, preparation = _parts(glyph, runtime)
    return (
        _templates()
        .get_template("python.py.j2")
        .render(
            artifact=artifact,
            package=package,
            imports=imports,
            preparation=preparation,
            side=SIDE,
            turn=TURNS[artifact.preprocess.orientation],
            batch=source.batch or 1,
            inner=_inner(source),
            source=source,
            sink=sink,
            index=index,
            steps=np.iinfo(source.spec.dtype) if _is_quantized(source, artifact) else None,
        )
    )


def _inner(source: TensorCodec) -> tuple[int, ...]:
    """Return the shape of one image's input."""
    inner = source.spec.shape[1:]
    return tuple(SIDE if size == -1 else size for size in inner)


def _is_quantized(source: TensorCodec, artifact: Artifact) -> bool:
    """Return whether pixels become integers by a scale; integers of the preprocess are taken as they are."""
    return np.dtype(source.spec.dtype).kind != "f" and artifact.preprocess.dtype != source.spec.dtype


def _parts(module: ModuleType, runtime: str) -> tuple[str, str]:
    """Return the program's imports, among them those of a module, and all that stands below that module's imports.

    runtime: the import of what runs the file.
    """
    source = inspect.getsource(module)
    found = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    # Those of our own packages are left out: the template stands in for them.
    outside = [line for line in map(ast.unparse, found) if not line.startswith(("from __future__", "from calibration"))]
    lines = sorted({*outside, *OWN_IMPORTS, runtime}, key=lambda line: (line.startswith("from "), line.lower()))
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    imports = "\n".join(["from __future__ import annotations", "", *standard, "", *others])
    return imports, "\n".join(source.splitlines()[found[-1].end_lineno or 0 :]).strip()


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "snippets"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Python source, in which every value is a literal
    )
    environment.filters["literal"] = repr
    return environment
