"""Files that say, or unpack to, much more than they are: one line, before the memory goes."""

from __future__ import annotations

import gzip
import io
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.conftest import Finished

Run = Callable[..., Finished]
GIGABYTES = 2 << 30


def zipped(path: Path, name: str, head: bytes, count: int) -> None:
    """Write a zip with one part: a head, then `count` zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as part:
        part.write(head)
        for _ in range(count >> 20):
            part.write(bytes(1 << 20))


def npz(folder: Path) -> list[object]:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (300 << 20,)})
    zipped(folder / "b.npz", "logits.npy", head.getvalue(), 300 << 20)
    return ["compare", folder / "b.npz", folder / "b.npz"]


def npz_header(folder: Path) -> list[object]:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (GIGABYTES,)})
    zipped(folder / "b.npz", "logits.npy", head.getvalue(), 0)
    return ["compare", folder / "b.npz", folder / "b.npz"]


def baseline(folder: Path) -> list[object]:
    npz(folder)
    return ["gate", "--baseline", folder / "b.npz", "--candidate", folder / "b.npz"]


def checkpoint(folder: Path) -> list[object]:
    zipped(folder / "m.pt", "m/data.pkl", b"\x80\x02", 300 << 20)
    return ["inspect", folder / "m.pt"]


def program(folder: Path) -> list[object]:
    zipped(folder / "m.pt2", "m/models/model.json", b"{", 300 << 20)
    return ["inspect", folder / "m.pt2"]


def torchscript(folder: Path) -> list[object]:
    zipped(folder / "m.pt", "m/code/__torch__.py", b"#", 300 << 20)
    return ["inspect", folder / "m.pt"]


def torchscript_string(folder: Path) -> list[object]:
    with zipfile.ZipFile(folder / "m.pt", "w") as archive:
        archive.writestr("m/code/__torch__.py", "")
        archive.writestr("m/version", "3")
        archive.writestr("m/data.pkl", b"\x80\x02X\xff\xff\xff\xffa.")
        archive.writestr("m/constants.pkl", b"\x80\x02).")
    return ["inspect", folder / "m.pt"]


def idx(folder: Path) -> list[object]:
    for part in ("train", "test"):
        shape = np.array((400_000, 28, 28), ">u4").tobytes()
        images = bytes((0, 0, 8, 3)) + shape + bytes(400_000 * 784)
        (folder / f"emnist-digits-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = bytes((0, 0, 8, 1)) + np.array((400_000,), ">u4").tobytes() + bytes(400_000)
        (folder / f"emnist-digits-{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return ["data", "check", f"{folder}:digits"]


def picture(folder: Path) -> list[object]:
    for name in ("a", "b"):
        (folder / "set" / name).mkdir(parents=True)
        Image.new("1", (9000, 9000)).save(folder / "set" / name / "1.png")
    return ["data", "check", folder / "set"]


def external(folder: Path) -> list[object]:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[784, 10], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="w.bin")
    with (folder / "w.bin").open("wb") as stream:
        stream.truncate(GIGABYTES)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 784])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    node = helper.make_node("MatMul", ["image", "w"], ["logits"])
    onnx.save(helper.make_model(helper.make_graph([node], "net", [image], [logits], [weights])), folder / "m.onnx")
    return ["export", folder / "m.onnx", "--classes", "0123456789", "--scale", "0-1", "-o", folder / "o.onnx"]


def external_inspected(folder: Path) -> list[object]:
    return ["inspect", external(folder)[1]]


def safetensors(folder: Path) -> list[object]:
    header = b'{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    (folder / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return ["inspect", folder / "m.safetensors"]


CASES = [
    npz,
    npz_header,
    baseline,
    checkpoint,
    program,
    torchscript,
    torchscript_string,
    idx,
    picture,
    external,
    external_inspected,
]


@pytest.mark.parametrize("made", [*CASES, safetensors], ids=lambda made: f"row33-{made.__name__}")
def test_a_file_that_would_fill_the_memory_is_refused(
    made: Callable[[Path], list[object]], tmp_path: Path, glyphpress: Run
) -> None:
    words = made(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = glyphpress(*words)
    assert done.code == 3, done.err
    said = [line for line in done.err.strip().splitlines() if not line.startswith("checking ")]
    assert len(said) == 1, done.err
    # The libraries that the first command imports take some of it; none of these files is under 250 MB unpacked.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000
