"""Every reader there is: how its file is damaged, and the commands that then read it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from calibration import download
from tests.fuzz import mutate
from tests.fuzz.program import guarded, run

Reader = Callable[[Random, Path, Path], int]
"""Takes a source of chance, the folder of whole files and an empty one; returns an exit code."""
READERS: dict[str, Reader] = {}
DIGITS = "0123456789"


def reader(function: Reader) -> Reader:
    """Register a reader under the name of its function."""
    READERS[function.__name__] = function
    return function


def _put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _described(base: Path, source: str, folder: Path, content: bytes) -> Path:
    """Write damaged bytes with a sidecar that says they are just what they should be."""
    path = _put(folder, f"x{Path(source).suffix}", content)
    facts = json.loads((base / f"{source}.json").read_text())
    facts |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "file": path.name}
    _put(folder, f"{path.name}.json", json.dumps(facts).encode())
    return path


def _data(base: Path) -> tuple[str, str]:
    return "--data", f"{base / 'data'}:digits"


def _idx(random: Random, content: bytes) -> bytes:
    head = mutate.damaged(random, content[:16])
    return head + (content[16:] if random.random() < 0.8 else mutate.damaged(random, content[16:]))


@reader
def idx(random: Random, base: Path, folder: Path) -> int:
    data = shutil.copytree(base / "data", folder / "data")
    path = random.choice(sorted(data.glob("*ubyte")))
    path.write_bytes(_idx(random, path.read_bytes()))
    return run("data", "check", f"{data}:digits")


@reader
def idx_gzip(random: Random, base: Path, folder: Path) -> int:
    data = shutil.copytree(base / "data", folder / "data")
    path = random.choice(sorted(data.glob("*ubyte")))
    content = path.read_bytes()
    path.unlink()
    packed = gzip.compress(_idx(random, content)) if random.random() < 0.3 else None
    _put(data, f"{path.name}.gz", packed or mutate.damaged(random, gzip.compress(content)))
    return run("data", "check", f"{data}:digits")


def _data_file(random: Random, base: Path, folder: Path, name: str) -> int:
    """Damage one of the data files in other formats, and check the data set to which it belongs."""
    data = shutil.copytree(base / "tables", folder / "tables")
    path = data / name
    path.write_bytes(mutate.damaged(random, path.read_bytes()))
    return run("data", "check", path)


@reader
def pixel_table(random: Random, base: Path, folder: Path) -> int:
    return _data_file(random, base, folder, random.choice(["emnist-digits-test.csv", "mnist_test.csv.gz"]))


@reader
def matlab(random: Random, base: Path, folder: Path) -> int:
    return _data_file(random, base, folder, "emnist-digits.mat")


@reader
def parquet(random: Random, base: Path, folder: Path) -> int:
    return _data_file(random, base, folder, "test-00000-of-00002.parquet")


@reader
def mapping(random: Random, base: Path, folder: Path) -> int:
    data = shutil.copytree(base / "data", folder / "data")
    path = data / "emnist-digits-mapping.txt"
    path.write_bytes(mutate.damaged(random, path.read_bytes()))
    return run("data", "check", f"{data}:digits")


@reader
def pictures(random: Random, base: Path, folder: Path) -> int:
    from PIL import Image

    root = shutil.copytree(base / "pictures", folder / "pictures")
    kind = random.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "SGI"])
    picture, packed = Image.open(root / "0" / "0.png"), io.BytesIO()
    mode = random.choice(["L", "RGB", "P", "1"]) if kind in ("PNG", "GIF", "BMP", "TIFF") else "RGB"
    picture.convert(mode).save(packed, kind)
    _put(root / "0", f"z.{kind.lower()}", mutate.damaged(random, packed.getvalue()))
    return run("data", "check", root)


def _onnx(random: Random, base: Path) -> bytes:
    return mutate.damaged_onnx(random, (base / "net.onnx").read_bytes())


@reader
def onnx_inspect(random: Random, base: Path, folder: Path) -> int:
    return run("inspect", _put(folder, "x.onnx", _onnx(random, base)))


@reader
def onnx_export(random: Random, base: Path, folder: Path) -> int:
    path, words = _put(folder, "x.onnx", _onnx(random, base)), ("--classes", DIGITS, "--scale", "0-1")
    return run("export", path, *words, "-o", folder / random.choice(["y.onnx", "y.ort"]))


@reader
def onnx_quantize(random: Random, base: Path, folder: Path) -> int:
    path = _described(base, "net.onnx", folder, _onnx(random, base))
    scheme = random.choice(["static-int8", "static-int4", "dynamic-int8", "weight-int4", "float16"])
    words = ("--calibration-images", 10) if scheme.startswith("static") else ()
    return run("quantize", path, *_data(base), "--scheme", scheme, *words, "-o", folder / "y.onnx")


@reader
def onnx_evaluate(random: Random, base: Path, folder: Path) -> int:
    content = _onnx(random, base)
    known = random.random() < 0.8
    path = _described(base, "net.onnx", folder, content) if known else _put(folder, "x.onnx", content)
    return run("evaluate", path, *_data(base))


@reader
def onnx_adopt(random: Random, base: Path, folder: Path) -> int:
    path = _put(folder, "x.onnx", _onnx(random, base))
    return run("adopt", path, *_data(base), "--orientation", "upright", "--scale", "0-1")


def _tflite(random: Random, base: Path) -> bytes:
    content, where = (base / "net.tflite").read_bytes(), random.random()
    if where < 0.3:
        return mutate.damaged(random, content[:3000]) + content[3000:]
    if where < 0.7:
        return content[:-8000] + mutate.damaged(random, content[-8000:])
    return mutate.damaged(random, content)


@reader
def tflite_inspect(random: Random, base: Path, folder: Path) -> int:
    return run("inspect", _put(folder, "x.tflite", _tflite(random, base)))


@reader
def tflite_evaluate(random: Random, base: Path, folder: Path) -> int:
    return run("evaluate", _described(base, "net.tflite", folder, _tflite(random, base)), *_data(base))


@reader
def tflite_quantize(random: Random, base: Path, folder: Path) -> int:
    path = _described(base, "net.tflite", folder, _tflite(random, base))
    scheme = random.choice(["static-int8", "dynamic-int8", "float16"])
    words = ("--calibration-images", 10) if scheme.startswith("static") else ()
    return run("quantize", path, *_data(base), "--scheme", scheme, *words, "-o", folder / "y.tflite")


@reader
def tflite_adopt(random: Random, base: Path, folder: Path) -> int:
    path = _put(folder, "x.tflite", _tflite(random, base))
    return run("adopt", path, *_data(base), "--orientation", "upright", "--scale", "0-1")


@reader
def ort_evaluate(random: Random, base: Path, folder: Path) -> int:
    content, where = (base / "int8.ort").read_bytes(), random.random()
    if where < 0.4:
        content = mutate.damaged(random, content[:2000]) + content[2000:]
    elif where < 0.7:
        content = content[:-4000] + mutate.damaged(random, content[-4000:])
    else:
        content = mutate.damaged(random, content)
    return run("evaluate", _described(base, "int8.ort", folder, content), *_data(base))


@reader
def npz_compare(random: Random, base: Path, folder: Path) -> int:
    content = mutate.damaged_npz(random, (base / "reader.npz").read_bytes())
    files = [base / "reader.npz", _put(folder, "x.npz", content)]
    random.shuffle(files)
    return run("compare", *files)


@reader
def npz_gate(random: Random, base: Path, folder: Path) -> int:
    source = random.choice(["reader.npz", "baseline.npz"])
    path = _put(folder, "x.npz", mutate.damaged_npz(random, (base / source).read_bytes()))
    first, second = random.choice([(path, base / "reader.npz"), (base / "reader.npz", path), (path, path)])
    return run("gate", "--baseline", first, "--candidate", second, "--policy", "smoke")


@reader
def npz_report(random: Random, base: Path, folder: Path) -> int:
    content = mutate.damaged_npz(random, (base / "timings.npz").read_bytes())
    files = [_put(folder, "x.npz", content), *[base / "timings.npz"] * random.randrange(2)]
    random.shuffle(files)
    return run("report", *files, *random.choice([(), ("--markdown",), ("--json",)]))


@reader
def archive(random: Random, base: Path, folder: Path) -> int:
    """An archive of EMNIST's files that has the MD5 it should have, and lies there already."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted((base / "data").glob("*ubyte")):
            made.writestr(f"gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    whole = packed.getvalue()
    content = (
        mutate.damaged(random, whole)
        if random.random() < 0.6
        else mutate.damaged_zip(random, whole, preferred=(".gz",))
    )
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    _put(folder, f"emnist-{digest[:8]}.zip", content)
    return guarded(lambda: print(download.fetch(folder, download.Archive("http://127.0.0.1:9/x", digest))))


@reader
def browser(random: Random, base: Path, folder: Path) -> int:
    """A page that answers what it should not."""
    from tests.fuzz.page import asked

    return asked(random, base / "reader.onnx")


def _weights(random: Random) -> tuple[str, ...]:
    return random.choice([(), ("--model", "cnn-small"), ("--weights", "state_dict")])


@reader
def torch_weights(random: Random, base: Path, folder: Path) -> int:
    content = mutate.damaged_zip(random, (base / "net.pt").read_bytes(), preferred=("data.pkl",))
    return run("inspect", _put(folder, "x.pt", content), *_weights(random))


@reader
def torch_program(random: Random, base: Path, folder: Path) -> int:
    content = mutate.damaged_zip(random, (base / "net.pt2").read_bytes(), preferred=(".json", ".pkl"))
    return run("inspect", _put(folder, "x.pt2", content))


@reader
def torchscript(random: Random, base: Path, folder: Path) -> int:
    content = mutate.damaged_zip(random, (base / "script.pt").read_bytes(), preferred=(".py", ".pkl", ".json"))
    return run("inspect", _put(folder, "x.pt", content))


@reader
def torch_export(random: Random, base: Path, folder: Path) -> int:
    """What a checkpoint must be for more than its tensors to be listed."""
    source, words = random.choice([("net.pt", ()), ("script.pt", ("--classes", DIGITS, "--scale", "0-1"))])
    content = mutate.damaged_zip(random, (base / source).read_bytes(), preferred=("data.pkl", ".py"))
    return run("export", _put(folder, "x.pt", content), *words, "-o", folder / "y.onnx")


@reader
def safetensors(random: Random, base: Path, folder: Path) -> int:
    content = (base / "net.safetensors").read_bytes()
    end, way = 8 + int.from_bytes(content[:8], "little"), random.random()
    if way < 0.4:
        head = mutate.damaged_json(random, content[8:end].decode())
        content = len(head).to_bytes(8, "little") + head + content[end:]
    elif way < 0.6:
        head = json.loads(content[8:end])
        ours = mutate.damaged_json(random, head["__metadata__"]["glyphpress"]).decode(errors="replace")
        head["__metadata__"]["glyphpress"] = ours
        head = json.dumps(head).encode()
        content = len(head).to_bytes(8, "little") + head + content[end:]
    else:
        content = (
            mutate.damaged(random, content[:end]) + content[end:] if way < 0.8 else mutate.damaged(random, content)
        )
    return run("inspect", _put(folder, "x.safetensors", content), *_weights(random)[:2])


@reader
def sidecar(random: Random, base: Path, folder: Path) -> int:
    name = random.choice(["net.onnx", "int8.ort", "net.tflite"])
    path = _put(folder, name, (base / name).read_bytes())
    _put(folder, f"{name}.json", mutate.damaged_json(random, (base / f"{name}.json").read_text()))
    return run("inspect", path) if random.random() < 0.2 else run("evaluate", path, *_data(base))


@reader
def recipe(random: Random, base: Path, folder: Path) -> int:
    from toolchain.recipe import shipped

    text = random.choice(list(shipped().values())).toml()
    return run("recipe", "show", _put(folder, "x.toml", mutate.damaged_toml(random, text)))


@reader
def policy(random: Random, base: Path, folder: Path) -> int:
    path = _put(folder, "x.toml", mutate.damaged_toml(random, (base / "gate.toml").read_text()))
    files = ("--baseline", base / "reader.npz", "--candidate", base / "reader.npz")
    return run("gate", *files, "--policy", path)


@reader
def profile(random: Random, base: Path, folder: Path) -> int:
    from targets.profiles import SHIPPED

    source = random.choice(sorted(SHIPPED.glob("*.toml")))
    path = _put(folder, "x.toml", mutate.damaged_toml(random, source.read_text()))
    return run("targets", "show", path)


@reader
def ranges(random: Random, base: Path, folder: Path) -> int:
    path = _put(folder, "r.json", mutate.damaged_json(random, (base / "ranges.json").read_text()))
    if random.random() < 0.7:
        return run("ranges", path, "-o", folder / "r.svg")
    words = ("--scheme", "static-int8", "--ranges", path)
    return run("quantize", base / "net.onnx", *words, "-o", folder / "y.onnx")


@reader
def evidence(random: Random, base: Path, folder: Path) -> int:
    return run("gate", "--from", _put(folder, "e.json", mutate.damaged_json(random, (base / "gate.json").read_text())))


@reader
def report(random: Random, base: Path, folder: Path) -> int:
    _put(folder, "report.json", mutate.damaged_json(random, (base / "press" / "report.json").read_text()))
    return run("report", folder, *random.choice([(), ("--markdown",), ("--json",)]))


@reader
def board(random: Random, base: Path, folder: Path) -> int:
    """An agent that answers what it should not."""
    from tests.fuzz.board import talked

    return talked(random, base / "reader.onnx", folder)
