"""Writes a complete program that reads pictures with one model file and without glyphpress.

It opens this very file, prepares a picture as its sidecar says, and prints the character. The preparation is the
source of `calibration/glyph.py` itself or of its port to the language, so that all see the same pixels.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from calibration import glyph
from calibration.dataset import SIDE
from targets.artifact import Artifact, Format
from targets.browser import ARRAY_TYPES
from targets.browser.chromium import LITERT_JS, ONNXRUNTIME_WEB
from targets.host.runtime_session import TensorCodec, codecs_of, input_and_output
from targets.preprocess import TURNS, Orientation
from toolchain.core.errors import UsageProblem


@dataclass(frozen=True)
class Language:
    """What a program can be written for.

    packages: format -> what runs its files, as the installer takes it. imports: in Python, those of that. arrays: type
    of an input or output -> its array (in Java its bytes); files with other types are refused. types: format -> the
    types that its runtime takes, where these are not all. port: suffix of the port of glyph.py, by default its
    programs' own.
    """

    packages: dict[Format, str]
    template: str
    imports: tuple[str, ...] = ()
    arrays: dict[str, str] | None = None
    types: dict[Format, tuple[str, ...]] | None = None
    port: str = ""

    @property
    def suffix(self) -> str:
        """Return the suffix of its programs."""
        return Path(self.template).with_suffix("").suffix

    def known_types(self, kind: Format) -> list[str]:
        """Return the types of inputs and outputs that its programs know in files of this format."""
        return [each for each in self.arrays or () if not self.types or each in self.types[kind]]


_JAVASCRIPT = {"float32": "Float32Array", "uint8": "Uint8Array", "int8": "Int8Array", "int32": "Int32Array"}
_CPP = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int32": "int32_t"}
_JAVA = {"float32": "4", "uint8": "1", "int8": "1", "int32": "4"}
_ANDROID: dict[Format, str] = {
    "tflite": "com.google.ai.edge.litert:litert:2.2.0",
    "onnx": "com.microsoft.onnxruntime:onnxruntime-android:1.29.0",
}
_WEB: dict[Format, str] = {
    "onnx": f"onnxruntime-web@{ONNXRUNTIME_WEB.version}",
    "tflite": f"{LITERT_JS.name}@{LITERT_JS.version}",
}
LANGUAGES: dict[str, Language] = {
    "python-onnx": Language({"onnx": "onnxruntime"}, "python.py.j2", ("import onnxruntime",)),
    "python-litert": Language(
        {"tflite": "ai-edge-litert"},
        "python.py.j2",
        ("import os", "from contextlib import contextmanager", "from ai_edge_litert.interpreter import Interpreter"),
    ),
    "javascript": Language(
        {"onnx": f"onnxruntime-web@{ONNXRUNTIME_WEB.version} sharp@0.35.5"}, "javascript.mjs.j2", arrays=_JAVASCRIPT
    ),
    "web": Language(_WEB, "web.html.j2", arrays=_JAVASCRIPT, types=ARRAY_TYPES, port=".mjs"),
    "c++": Language({"onnx": "onnxruntime"}, "cpp.cpp.j2", arrays=_CPP),
    "java-android": Language(_ANDROID, "android.java.j2", arrays=_JAVA),
}
OWN_IMPORTS = ("import hashlib", "import sys", "from pathlib import Path")
PYTHON_TURNS: dict[Orientation, str] = {
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
    """Return the program's text. language: by default the Python for the file's format.

    Raises UsageProblem for a language that takes other files, and RunFailed for a file without an image input.
    """
    chosen = language_for(artifact, language)
    source, sink, index = input_and_output(artifact, *codecs_of(artifact))
    for spec in (source.spec, sink.spec):
        if chosen.arrays and spec.dtype not in (known := chosen.known_types(artifact.format)):
            raise UsageProblem(
                f"{spec.name} of {artifact.path.name} is {spec.dtype}, and a program for {language} knows "
                f"{', '.join(known)}; give another --for, or export the file with float input and output"
            )
    batch, preprocess = source.batch or 1, artifact.preprocess
    facts: dict[str, Any] = {
        "artifact": artifact,
        "package": chosen.packages[artifact.format],
        "side": SIDE,
        "batch": batch,
        "shape": [batch, *_inner(source)],
        "source": source,
        "sink": sink,
        "index": index,
        "offset": preprocess.label_offset,
        "steps": np.iinfo(source.spec.dtype) if _is_quantized(source, artifact) else None,
    }
    if chosen.arrays:
        facts |= {
            "arrays": chosen.arrays,
            "array": chosen.arrays[source.spec.dtype],
            "turn": Turn.of(preprocess.orientation),
        }
        facts["preparation"] = _port(chosen.port or chosen.suffix)
    else:
        facts["imports"], facts["preparation"] = _parts(glyph, chosen.imports)
        facts["turn"] = PYTHON_TURNS[preprocess.orientation]
    return _templates().get_template(chosen.template).render(facts)


def language_for(artifact: Artifact, name: str | None) -> Language:
    """Return a language by its name, or the first one that opens the file; raises UsageProblem where it opens none."""
    fits = [each for each, language in LANGUAGES.items() if artifact.format in language.packages]
    if name not in fits and (name or not fits):
        others = [f".{kind}" for kind in (LANGUAGES[name].packages if name else ("onnx",))]
        advice = f"give the {' or '.join(others)} that was made with it"
        if fits:
            advice += f", or --for {', '.join(fits[:-1])} or {fits[-1]}"
        raise UsageProblem(f"{name or 'a program'} opens no .{artifact.format} such as {artifact.path.name}; {advice}")
    return LANGUAGES[name or fits[0]]


@dataclass(frozen=True)
class Turn:
    """A turn as a place in the upright pixels: start + down * row + across * column of the turned ones."""

    start: int
    down: int
    across: int

    @classmethod
    def of(cls, orientation: Orientation) -> Turn:
        """Return the turn of an orientation."""
        rows, columns = TURNS[orientation](np.indices((SIDE, SIDE), np.uint8)).astype(int)
        places = rows * SIDE + columns
        start = int(places[0, 0])
        return cls(start, int(places[1, 0]) - start, int(places[0, 1]) - start)


def _inner(source: TensorCodec) -> tuple[int, ...]:
    """Return the shape of one image's input."""
    inner = source.spec.shape[1:]
    return tuple(SIDE if size == -1 else size for size in inner)


def _is_quantized(source: TensorCodec, artifact: Artifact) -> bool:
    """Return whether pixels become integers by a scale; integers of the preprocess are taken as they are."""
    return np.dtype(source.spec.dtype).kind != "f" and artifact.preprocess.dtype != source.spec.dtype


def _parts(module: ModuleType, runtime: tuple[str, ...]) -> tuple[str, str]:
    """Return the program's imports, among them those of a module, and all that stands below that module's imports.

    runtime: the imports of what runs the file.
    """
    source = inspect.getsource(module)
    found = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    # Those of our own packages are left out: the template stands in for them.
    outside = [line for line in map(ast.unparse, found) if not line.startswith(("from __future__", "from calibration"))]
    lines = sorted({*outside, *OWN_IMPORTS, *runtime}, key=lambda line: (line.startswith("from "), line.lower()))
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    others = [line for line in lines if line not in standard]
    imports = "\n".join(["from __future__ import annotations", "", *standard, "", *others])
    return imports, "\n".join(source.splitlines()[found[-1].end_lineno or 0 :]).strip()


def _port(suffix: str) -> str:
    """Return the port of glyph.py to another language, as a part of a program."""
    text = Path(glyph.__file__).with_suffix(suffix).read_text()
    # Its first lines say whose port it is.
    return re.sub(r"^export ", "", text.split("\n\n", 1)[1], flags=re.MULTILINE).strip()


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "snippets"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # source code, in which every value is a literal
    )
    environment.filters |= {"literal": repr, "json": _json_literal, "c": _c_literal}
    return environment


def _json_literal(value: object) -> str:
    """Return a value in JSON that ends no <script> of a page."""
    return json.dumps(value).replace("<", "\\u003c")


def _c_literal(text: str) -> str:
    """Return a text as a string of C, its bytes in UTF-8; what C would take for something else is octal."""
    plain = set(map(chr, range(32, 127))) - set('"\\?')
    return '"' + "".join(chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
