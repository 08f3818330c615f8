"""Homes, disks and names that a machine may have."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from targets import catalog
from targets.errors import TargetUnavailable
from targets.host import cache
from targets.metadata import load_artifact
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader

Run = Callable[..., Finished]
ROOT = Path(__file__).resolve().parents[1]
# As a container sees it that runs under the number of a user it does not know.
NOBODY = (
    "import os, pwd\n"
    "def unknown(uid): raise KeyError(uid)\n"
    "pwd.getpwuid = unknown\n"
    "from toolchain.cli.main import main; main()"
)
QUANTIZE = ("quantize", "float.onnx", "--scheme", "dynamic-int8", "-o")
VARIABLES = {"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "GLYPHPRESS_DATA"}


def run(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environ |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")} | settings
    command = [sys.executable, "-c", NOBODY, "-q", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def float_file(tmp_path: Path) -> Path:
    return linear_reader(tmp_path / "float.onnx")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        pytest.param([*QUANTIZE, "q.onnx"], 0, "", id="row58-quantize"),
        pytest.param(["targets", "list"], 0, "", id="row58-targets list"),
        pytest.param(["data", "list"], 0, "", id="row58-data list"),
        pytest.param(["data", "fetch"], 3, "no home .*--data-root", id="row58-data fetch"),
        pytest.param(["data", "check", "emnist:digits"], 3, "no emnist-digits-t.*--data-root", id="row58-data check"),
    ],
)
def test_without_a_home(tmp_path: Path, float_file: Path, words: list[str], code: int, told: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == bool(told)
    assert not (tmp_path / "~").exists()
    assert re.search(told, done.stderr)


def test_row58_a_home_that_takes_nothing(tmp_path: Path, float_file: Path) -> None:
    # Not even root can make a folder there.
    done = run(tmp_path, *QUANTIZE, "q.onnx", HOME="/proc")
    assert (done.returncode, done.stderr) == (0, "")
    assert load_artifact(tmp_path / "q.onnx").recipe == "dynamic-int8"


def test_row58_without_a_cache_what_is_built_serves_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "user_cache_path", lambda _: Path("/dev/null/cache"))
    built: list[Path] = []
    folders = {cache.cached("test/thing", "words", built.append) for _ in range(2)}
    assert len(built) == len(folders) == 1
    assert folders.pop().is_dir()


def test_row58_one_unreadable_place_does_not_hide_the_other_targets(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret/browser")

    null = catalog.get("null")
    monkeypatch.setattr(type(null), "probe", lambda _self: unreadable())
    (tmp_path / "kitchen.toml").mkdir()
    monkeypatch.setenv("GLYPHPRESS_TARGETS", str(tmp_path))
    done = glyphpress("targets", "list")
    assert done.code == 0, done.err
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert lines["ort-cpu"].endswith("available")
    assert "not here: /secret/browser: Permission denied" in lines["null"]
    assert "not usable" in lines["kitchen"]


Usage = namedtuple("Usage", "total used free")


def test_row59_a_full_disk_is_named_where_the_registry_would_be_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10, 10, 0))
    with pytest.raises(TargetUnavailable, match=rf"the disk of {tmp_path} is full: .*XDG_CACHE_HOME") as caught:
        cache.run_program(["sh", "-c", "echo pip is unhappy >&2; exit 1"], "pip")
    assert "network" not in str(caught.value)


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device", "npm error code ENOSPC", "Disk quota exceeded"])
def test_row59_a_disk_that_has_room_again_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """A program that fails removes what it wrote, so the disk is no longer full when anybody looks."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    free = {tmp_path / "tmp": 40_000_000}
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 0, free.get(folder, 10**9)))
    with pytest.raises(
        TargetUnavailable, match=rf"disk of {tmp_path}/tmp was full, which has 40 MB .*TMPDIR"
    ) as caught:
        cache.run_program(["sh", "-c", f"echo '{said}' >&2; echo it failed >&2; exit 1"], "pip")
    assert "network" not in str(caught.value)
    with pytest.raises(TargetUnavailable, match="network"):
        cache.run_program(["sh", "-c", "echo no such host >&2; exit 1"], "pip")


def test_row59_an_error_that_names_no_file_names_the_disk(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: object, **_settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("calibration.check.check", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10, 10, 0))
    done = glyphpress("-q", "data", "check", "builtin:digits")
    assert done.code == 3
    assert "No space left on device; the disk of" in done.err
    assert "TMPDIR" in done.err


def test_row59_what_is_needed_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10, 10, 5_000_000))
    with pytest.raises(TargetUnavailable, match=r"has 5 MB free and about 350 MB are needed; .*XDG_CACHE"):
        cache.cached("arm64/root", "words", lambda _part: pytest.fail("the work began"), need=350_000_000)


def test_row34_what_a_killed_builder_left_in_the_cache_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path)
    (tmp_path / "arm64" / ".root-abcd1234").mkdir(parents=True)
    (tmp_path / "arm64" / ".root-other-abcd1234").mkdir()
    cache.cached("arm64/root", "words", lambda _part: None)
    assert {path.name for path in (tmp_path / "arm64").glob(".*")} == {".root-other-abcd1234"}


@pytest.fixture
def strange(float_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name in Latin-1, and files that have it."""
    monkeypatch.chdir(float_file.parent)
    name = os.fsdecode(b"caf\xe9")
    for source, suffix in ((float_file, ".onnx"), (float_file.with_name("float.onnx.json"), ".onnx.json")):
        shutil.copy(source, name + suffix)
    for suffix in (".pt", ".ts", ".safetensors", ".pt2"):
        Path(name + suffix).write_bytes(b"PK\x03\x04")
    return name


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["evaluate", "NAME.onnx", "--data", "builtin:digits"], 3),
        (["profile", "NAME.onnx"], 3),
        (["gate", "--baseline", "NAME.onnx", "--candidate", "float.onnx", "--data", "builtin:digits"], 3),
        (["export", "NAME.onnx", "-o", "o.ort"], 3),
        (["inspect", "NAME.ts"], 3),
        (["inspect", "NAME.safetensors"], 3),
        (["export", "NAME.pt", "-o", "o.onnx"], 3),
        (["prune", "NAME.pt2", "--data", "builtin:digits", "-o", "o.pt2"], 3),
        ([*QUANTIZE, "NAME2.onnx"], 2),
        (["export", "float.onnx", "-o", "NAME2.ort"], 2),
    ],
    ids=lambda value: f"row61-{value[0]} {value[1][-5:]}" if isinstance(value, list) else str(value),
)
def test_a_model_whose_name_is_not_utf8_is_one_line(
    *, glyphpress: Run, strange: str, words: list[str], code: int
) -> None:
    before = sorted(Path().iterdir())
    done = glyphpress("-q", *(word.replace("NAME", strange) for word in words))
    assert (done.code, done.out) == (code, "")
    assert "the name is not UTF-8" in done.err
    assert done.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_row61_results_that_are_no_models_may_have_any_name(*, glyphpress: Run, strange: str) -> None:
    done = glyphpress("-q", "evaluate", "float.onnx", "--data", "builtin:digits", "-o", f"{strange}.npz")
    assert done.code == 0, done.err
    assert Path(f"{strange}.npz").is_file()
