"""The packed size: of small files at once, of large ones only where it is asked for; and whose sidecar lies beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zstandard
from onnx import TensorProto, helper, numpy_helper

from tests.fixtures.digit_files import digit_files
from tests.fixtures.small_models import conv_net
from toolchain.formats.inspection import QUICK, packed_size, shown_size

Program = Callable[..., Any]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what earlier tests packed, as a new run of the program has."""
    monkeypatch.setattr("toolchain.formats.inspection._known", {})


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file over 8 MB that packs fast, since its weights are zero."""
    weight = numpy_helper.from_array(np.zeros((784, 3000), np.float32), "w")
    last = numpy_helper.from_array(np.zeros((3000, 10), np.float32), "v")
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "v"], ["y"]),
    ]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])
    sink = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "large", [source], [sink], [weight, last])
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert path.stat().st_size > QUICK
    return path


@pytest.fixture
def packers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The levels of the compressors that were made."""
    levels: list[int] = []
    compressor = zstandard.ZstdCompressor

    # Not a subclass: zstandard frees one at a wrong address, and the process dies of it much later.
    def counted(level: int) -> zstandard.ZstdCompressor:
        levels.append(level)
        return compressor(level=level)

    monkeypatch.setattr(zstandard, "ZstdCompressor", counted)
    return levels


@pytest.mark.parametrize("command", ["inspect", "profile"])
def test_row54_a_large_file_is_packed_only_where_asked(
    glyphpress: Program, large: Path, packers: list[int], command: str
) -> None:
    arguments = (command, large, *(("--seconds", "10ms", "--runs", "20") if command == "profile" else ()))
    done = glyphpress(*arguments)
    assert done.code == 0, done.err
    assert not packers
    assert "--packed measures it" in done.out
    assert "level 19" not in done.out
    result = json.loads(glyphpress(*arguments, "--json").out)
    assert (result["rows"][0] if command == "profile" else result)["packed"] is None


@pytest.mark.parametrize("command", ["inspect", "profile"])
def test_row54_level_and_progress_are_said_where_it_is_asked_for(
    glyphpress: Program, large: Path, command: str
) -> None:
    arguments = (command, large, "--packed", *(("--seconds", "10ms", "--runs", "20") if command == "profile" else ()))
    done = glyphpress(*arguments)
    assert done.code == 0, done.err
    assert "level 19" in done.out
    assert "packing large.onnx (zstd, level 19), MB 9/9" in done.err


def test_row54_the_same_file_is_packed_once_for_all_targets(
    glyphpress: Program, tmp_path: Path, packers: list[int]
) -> None:
    path, twin = (conv_net(tmp_path / name, channels=5) for name in ("a.onnx", "b.onnx"))
    done = glyphpress(
        "profile", path, twin, "--target", "ort-cpu", "--target", "null", "--runs", 20, "--seconds", "1ms"
    )
    assert done.code == 0, done.err
    assert packers == [19]


def test_row54_packing_can_be_interrupted_on_the_way(large: Path) -> None:
    calls = []

    def interrupt(label: str, done: int, total: int) -> None:
        calls.append((label, done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed_size(large, progress=interrupt)
    assert calls == [("packing large.onnx (zstd, level 19), MB", 0, 9)]


def test_in_parts_it_is_the_size_of_one_go_and_then_known(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(np.random.default_rng(0).normal(size=60_000).astype(np.float32).tobytes() + bytes(QUICK))
    assert shown_size(path) is None
    assert packed_size(path) == len(zstandard.ZstdCompressor(level=19).compress(path.read_bytes()))
    assert shown_size(path) == packed_size(path)


@pytest.mark.parametrize("name", ["digits.float.onnx", "digits.static-int8.tflite"])
def test_a_sidecar_that_is_not_of_these_bytes_is_told_and_nothing_is_taken_from_it(
    glyphpress: Program, tmp_path: Path, name: str
) -> None:
    made = digit_files(tmp_path)
    other = made["digits.float.tflite" if name.endswith("tflite") else "digits.static-int8.onnx"]

    def told() -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(glyphpress("inspect", tmp_path / name, "--json").out)
        return facts

    own = told()
    assert (own["sidecar"], own["metadata"]["recipe"]) == ("own", made[name].recipe)
    made[name].sidecar.write_bytes(other.sidecar.read_bytes())
    facts = told()
    assert (facts["sidecar"], facts["metadata"]) == ("other file", {})
    assert f"{name}.json belongs to another file" in facts["notes"][0]
    shown = glyphpress("inspect", tmp_path / name)
    assert f"{name}.json belongs to another file" in " ".join(shown.out.split())
    made[name].sidecar.write_text("{")
    facts = told()
    assert (facts["sidecar"], facts["metadata"]) == ("unreadable", {})
    assert f"{name}.json is refused" in facts["notes"][0]
    made[name].sidecar.unlink()
    assert told()["sidecar"] is None
