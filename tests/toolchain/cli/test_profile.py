"""The commands `profile`, `targets` and `version` as a user runs them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets import catalog
from targets.host import runtime_session
from targets.metadata import save_sidecar
from tests.fixtures.small_models import artifact, conv_net

SHORT = ("--seconds", "10ms", "--runs", "100")
Program = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [artifact(conv_net(tmp_path / f"{name}.onnx", channels=n)) for name, n in (("a", 4), ("b", 16))]
    for one in made:
        save_sidecar(one)
    return [one.path for one in made]


def test_the_table_is_on_stdout_and_progress_is_not(glyphpress: Program, files: list[Path]) -> None:
    done = glyphpress("profile", *files, *SHORT)
    assert done.code == 0, done.err
    assert "a.onnx" in done.out
    assert "ort-cpu (onnxruntime" in done.out
    assert "1 thread, batch 1" in done.out
    assert "timing" in done.err
    assert "timing" not in done.out


def test_json_is_one_object_and_the_samples_are_written(glyphpress: Program, files: list[Path], tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    done = glyphpress("profile", *files, *SHORT, "--threads", 2, "--batch", 4, "-o", samples, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["schema"] == "glyphpress/profile/1"
    first, second = said["rows"]
    assert (first["facts"]["threads"], first["batch"], first["ratio"]) == (2, 4, None)
    assert second["ratio"]["low"] <= second["ratio"]["ratio"] <= second["ratio"]["high"]
    assert first["percentiles_ns"]["p99.9"] is None or first["samples"] >= 10_000
    with np.load(samples) as stored:
        assert len(stored["samples_ns_0"]) == first["samples"]


def test_samples_are_stored_under_no_name_that_reads_as_another_kind_of_file(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    done = glyphpress("profile", files[0], *SHORT, "-o", tmp_path / "samples.csv")
    assert (done.code, done.out) == (2, "")
    assert "samples.csv should end in .npz" in done.err
    assert not (tmp_path / "samples.csv").exists()


def test_samples_are_not_overwritten_unasked(glyphpress: Program, files: list[Path], tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    samples.write_text("mine")
    refused = glyphpress("profile", files[0], *SHORT, "-o", samples)
    assert (refused.code, samples.read_text()) == (2, "mine")
    assert glyphpress("profile", files[0], *SHORT, "-o", samples, "--force").code == 0
    assert samples.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "ort-gpu"], 2, "did you mean ort-cpu"),
        (["--target", "litert-cpu"], 2, "litert-cpu does not run a.onnx"),
        (["--seconds", "2"], 2, "needs a number and a unit"),
        (["--batch", "0"], 2, "0 is not in the range"),
    ],
    ids=["unknown target", "another format", "no unit", "no images"],
)
def test_words_that_cannot_be_meant(
    glyphpress: Program, files: list[Path], words: list[str], code: int, said: str
) -> None:
    done = glyphpress("profile", files[0], *words)
    assert done.code == code
    assert said in " ".join(done.err.replace("│", " ").split())
    assert done.out == ""


def test_a_users_own_file_is_timed_without_a_sidecar(glyphpress: Program, tmp_path: Path) -> None:
    own = conv_net(tmp_path / "own.onnx", nhwc=True, batch=1, classes=13, names=("x", "y"))
    done = glyphpress("profile", own, *SHORT, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"][0]["artifact"] == "own.onnx"
    assert list(tmp_path.iterdir()) == [own]


@pytest.mark.parametrize("how", ["gone", "changed", "a picture"])
def test_a_file_that_is_no_artifact(glyphpress: Program, files: list[Path], how: str) -> None:
    path = files[0]
    if how == "gone":
        path.unlink()
    elif how == "changed":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        path.with_name("a.onnx.json").unlink()
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    done = glyphpress("profile", path)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("glyphpress: ")
    assert done.err.count("\n") == 1


def test_a_scripts_times_are_never_printed(glyphpress: Program, files: list[Path]) -> None:
    done = glyphpress("profile", *files, "--target", "null", *SHORT)
    assert done.code == 0
    assert done.out.count("simulated: a script") == 2
    assert not re.search(r"[0-9] (ns|us|ms)", done.out)


def test_places_that_are_not_here_say_why_or_end_the_run(glyphpress: Program, files: list[Path]) -> None:
    words = ("profile", files[0], "--target", "ort-cpu", "--target", "ort-cuda", *SHORT)
    if catalog.get("ort-cuda").probe().ok:
        pytest.skip("a CUDA device is here: its absence NOT checked")
    done = glyphpress(*words, "--json")
    here, there = json.loads(done.out)["rows"]
    assert (done.code, here["target"], there["target"]) == (0, "ort-cpu", "ort-cuda")
    assert (there["missing"], "percentiles_ns" in there) == (True, False)
    assert "not here: " in there["refused"]
    refused = glyphpress(*words, "--require")
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("opening") or "ort-cuda" in refused.err


def test_a_machine_that_is_not_quiet_is_marked_and_with_strict_refused(
    glyphpress: Program, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_session, "machine_state", lambda: {"load_average": [9.0, 1.0, 1.0], "usable_cores": 2})
    assert "NOT QUIET: load 9.0 on 2 cores" in glyphpress("profile", files[0], *SHORT).out
    refused = glyphpress("profile", files[0], *SHORT, "--strict")
    assert (refused.code, refused.out) == (3, "")
    assert "not quiet: load 9.0 on 2 cores" in refused.err


def test_targets_are_listed_and_probed(glyphpress: Program) -> None:
    listed = json.loads(glyphpress("targets", "list", "--json").out)
    assert {row["name"]: row["ok"] for row in listed["targets"]}["ort-cpu"] is True
    assert "litert-cpu" in glyphpress("targets", "list").out
    assert json.loads(glyphpress("targets", "probe", "null", "--json").out)["ok"] is True
    unknown = glyphpress("targets", "probe", "litert-cup")
    assert (unknown.code, unknown.out) == (2, "")
    assert "did you mean litert-cpu" in unknown.err


def test_a_target_without_its_package_is_unavailable(glyphpress: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = glyphpress("targets", "probe", "ort-cpu")
    assert done.code == 4
    assert "pip install onnxruntime" in done.err
    assert "not here" in glyphpress("targets", "list").out


def test_version_names_every_runtime(glyphpress: Program) -> None:
    import onnxruntime

    said = json.loads(glyphpress("version", "--json").out)
    assert said["packages"]["onnxruntime"] == onnxruntime.__version__
    assert {"python", "machine", "packages"} <= set(said)
    assert onnxruntime.__version__ in glyphpress("version").out


def test_a_sweep_times_every_way_in_a_process_of_its_own(
    glyphpress: Program, files: list[Path], tmp_path: Path
) -> None:
    fixed = artifact(conv_net(tmp_path / "fixed.onnx", batch=1))
    save_sidecar(fixed)
    words = ("profile", files[1], fixed.path, *SHORT, "--sweep-threads", "1,2", "--sweep-batch", "1,16")
    said = json.loads(glyphpress(*words, "--json").out)
    assert said["schema"] == "glyphpress/profile-sweep/1"
    ways = {(point["artifact"], point["threads"], point["batch"]): point for point in said["points"]}
    assert len(ways) == len(said["points"]) == 8
    for (name, threads, batch), point in ways.items():
        if (name, batch) == ("fixed.onnx", 16):
            assert (point["refused"], point["p50_ns"]) == ("its batch is fixed at 1", None)
        else:
            assert point["facts"]["threads"] == threads
            assert point["image_ns"] == point["p50_ns"] / batch
    assert ways["b.onnx", 1, 16]["p50_ns"] > 2 * ways["b.onnx", 1, 1]["p50_ns"]
    shown = glyphpress(*words).out
    assert ways["b.onnx", 1, 1]["speed_up"] is None
    for key in (("b.onnx", 2, 1), ("b.onnx", 1, 16)):
        speed_up = ways[key]["speed_up"]
        images = ways["b.onnx", 1, 1]["image_ns"] / ways[key]["image_ns"]
        assert speed_up["low"] <= speed_up["ratio"] <= speed_up["high"]
        assert speed_up["ratio"] == pytest.approx(images, rel=0.5)
    assert "speed-up: images in the same time, against the first row of that file and target" in shown
    assert "ort-cpu (onnxruntime " in shown
    assert "its batch is fixed at 1" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep-threads", "1;2"], "is no list of numbers; write 1,2,4"),
        (["--sweep-threads", "0,1"], "0 is not in the range 1 to "),
        (["--sweep-batch", "1,8", "--target", "litert-cpu"], "does not run"),
        (["--sweep-batch", "1,8", "--target", "arm64:cortex-a72"], "give a target of this machine"),
    ],
)
def test_what_cannot_be_swept(glyphpress: Program, files: list[Path], words: list[str], said: str) -> None:
    done = glyphpress("profile", files[0], *words)
    assert (done.code, done.out) == (2, "")
    assert said in " ".join(done.err.replace("│", " ").split())


def test_operators_are_told_with_their_shares(glyphpress: Program, files: list[Path]) -> None:
    shown = glyphpress("profile", *files, "--per-op")
    assert shown.code == 0, shown.err
    assert "b.onnx on ort-cpu" in shown.out
    said = json.loads(glyphpress("profile", files[1], "--per-op", "--batch", 4, "--json").out)
    assert said["schema"] == "glyphpress/profile-operators/1"
    (found,) = said["breakdowns"]
    assert found["batch"] == 4
    assert found["ns"] == pytest.approx(sum(one["ns"] for one in found["operators"]))
    assert "Conv" in [one["kernel"] for one in found["operators"]]


@pytest.mark.parametrize(
    "words",
    [
        ("--per-op", "--memory"),
        ("--per-op", "--sweep-threads", "1,2"),
        ("--per-op", "--seconds", "1s"),
        ("--sweep-threads", "1,2", "--threads", "2"),
        ("--sweep-batch", "1,2", "--strict"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(glyphpress: Program, files: list[Path], words: Any) -> None:
    done = glyphpress("profile", files[0], *words)
    assert (done.code, done.out) == (2, "")
    assert f"{words[-1] if words[-1].startswith('--') else words[-2]} has no meaning with" in done.err


def test_memory_is_of_devices(glyphpress: Program, files: list[Path]) -> None:
    done = glyphpress("profile", files[0], *SHORT, "--memory", "--target", "null")
    assert (done.code, done.out) == (2, "")
    assert "null" in done.err


def test_pinning_is_told_below_the_table(glyphpress: Program, files: list[Path]) -> None:
    done = glyphpress("profile", files[0], *SHORT, "--pin", "0")
    assert done.code == 0, done.err
    assert ("pinned to core 0" in done.out) is (len(os.sched_getaffinity(0)) > 1)
    refused = glyphpress("profile", files[0], *SHORT, "--pin", "0,4095")
    assert (refused.code, refused.out) == (3, "")
    assert "no core 4095" in refused.err


HUGE = "9" * 20


@pytest.mark.parametrize(
    "words",
    [
        ("profile", "--batch", "100000000"),
        ("profile", "--per-op", "--batch", "100000000"),
        ("profile", "--sweep-batch", "1,999999"),
        ("profile", "--sweep-threads", "1,999999"),
        ("profile", "--runs", HUGE),
        ("profile", "--threads", HUGE),
        ("profile", "--seed", "-1"),
        ("evaluate", "--data", "builtin:digits", "--threads", "100000"),
        ("quantize", "--data", "builtin:digits", "--scheme", "static-int8", "-o", "q.onnx", "--seed", "-1"),
        ("explain", "x.onnx", "--data", "builtin:digits", "--seed", HUGE),
    ],
    ids=lambda words: f"leftovers-{' '.join(words[:1] + words[-2:])}",
)
def test_numbers_beyond_any_machine_are_refused_in_a_line(
    glyphpress: Program, files: list[Path], words: tuple[str, ...]
) -> None:
    done = glyphpress(words[0], files[0], *words[1:])
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.startswith("glyphpress: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--epochs", "--batch", "--threads", "--seed"])
def test_numbers_beyond_any_training_are_refused_in_a_line(glyphpress: Program, tmp_path: Path, option: str) -> None:
    done = glyphpress("train", "--data", "builtin:digits", "-o", tmp_path / "x.pt", option, HUGE)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 73.0 GiB"),
        RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: Unable to allocate 73.0 GiB"),
    ],
    ids=["numpy", "torch"],
)
def test_memory_that_is_not_there_is_no_bug(
    glyphpress: Program, files: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_words: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr("toolchain.commands.profile.profile_files", refuse)
    done = glyphpress("profile", files[0])
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "not enough memory (Unable to allocate 73.0 GiB)" in done.err


@pytest.mark.parametrize("how", [(), ("--per-op",), ("--sweep-batch", "1")], ids=["survey", "per-op", "sweep"])
def test_all_cores_are_told_by_their_number(glyphpress: Program, files: list[Path], how: tuple[str, ...]) -> None:
    short = () if how == ("--per-op",) else ("--seconds", "1ms", "--runs", "20")
    done = glyphpress("profile", files[0], "--threads", 0, *how, *short, "--json")
    cores, said = len(os.sched_getaffinity(0)), json.loads(done.out)
    assert (said if not how else (said.get("breakdowns") or said["points"])[0])["threads"] == cores


@pytest.mark.parametrize("how", [(), ("--per-op",), ("--sweep-threads",)], ids=["survey", "per-op", "sweep"])
def test_more_threads_than_cores_are_remarked(glyphpress: Program, files: list[Path], how: tuple[str, ...]) -> None:
    cores = len(os.sched_getaffinity(0))
    short = () if how == ("--per-op",) else ("--seconds", "1ms", "--runs", "20")
    for threads in (1, cores + 1):
        words = (*how, threads) if how == ("--sweep-threads",) else (*how, "--threads", threads)
        done = glyphpress("profile", files[0], *words, *short)
        assert done.code == 0, done.err
        assert (f"{threads} threads on {cores} core" in done.out) is (threads > cores)
