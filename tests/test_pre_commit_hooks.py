"""The hooks of .pre-commit-hooks.yaml, run as pre-commit runs them: entry, args, and the files that changed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import onnx
import pytest
import yaml

from tests.fixtures.environments import ROOT, Environment, environment, wheel_once
from tests.fixtures.small_readers import linear_reader
from toolchain.ci import Job, ci_text
from toolchain.ci.source import read_source

HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What pre-commit installs: the core alone."""
    return environment(tmp_path_factory.mktemp("core"), wheel_once(tmp_path_factory))


def ran(
    name: str, arguments: list[str], project: Path, core: Environment, changed: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    hook = HOOKS[name]
    assert hook["language"] == "python"
    changed = changed or [path.name for path in project.iterdir()]
    changed = sorted(path for path in changed if re.search(hook["files"], path))
    words = [*shlex.split(hook["entry"]), *arguments, *(changed if hook.get("pass_filenames", True) else [])]
    return core.run_any(*words, cwd=project)


def test_the_gate_stops_a_commit_of_a_worse_file(core: Environment, tmp_path: Path) -> None:
    source = read_source("git+https://git.example.org/them/glyphpress@v0.2.0")
    written = yaml.safe_load(ci_text("pre-commit", Job(source, data="builtin:digits")))
    (hook,) = written["repos"][0]["hooks"]
    (tmp_path / "gate.toml").write_text('[drop]\nmax = "1pp"\naction = "fail"\n')
    linear_reader(tmp_path / "model.float.onnx")
    made = core.run(
        *("gate", "baseline", "model.float.onnx", "--data", "builtin:digits", "-o", "baseline.npz"), cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    for dead, code in (((), 0), ((4, 7), 1)):
        linear_reader(tmp_path / "model.int8.onnx", step=1e-4, dead=dead)
        done = ran(hook["id"], hook["args"], tmp_path, core)
        assert done.returncode == code, done.stderr


def test_model_files_that_cannot_be_read_are_all_named(core: Environment, tmp_path: Path) -> None:
    linear_reader(tmp_path / "-a; touch b.onnx")
    good = ran("glyphpress-inspect", [], tmp_path, core)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    whole = (tmp_path / "-a; touch b.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[:3000])
    (tmp_path / "lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 12\n")
    done = ran("glyphpress-inspect", [], tmp_path, core)
    assert done.returncode == 3
    assert [line.partition(" ")[2].partition(" ")[0] for line in done.stderr.splitlines()] == ["cut.onnx", "lfs.onnx"]


@pytest.mark.parametrize("weights", ["a b.onnx.data", "a b.onnx_data", "a b.data"])
def test_weights_that_were_committed_alone_are_opened_with_their_model(
    core: Environment, tmp_path: Path, weights: str
) -> None:
    linear_reader(tmp_path / "whole.onnx")
    model = onnx.load(tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "a b.onnx", save_as_external_data=True, location=weights, size_threshold=0)
    (tmp_path / "readings.data").write_text("no model's")
    (tmp_path / weights).write_bytes(b"cut")
    done = ran("glyphpress-inspect", [], tmp_path, core, changed=[weights, "readings.data"])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "a b.onnx" in done.stderr


@pytest.mark.parametrize(
    ("name", "path", "runs"),
    [
        ("glyphpress-gate", "models/net.int8.tflite", True),
        ("glyphpress-gate", "net.onnx.json", True),
        ("glyphpress-gate", "gate.toml", True),
        ("glyphpress-gate", "net.onnx.data", True),
        ("glyphpress-gate", "train.py", False),
        ("glyphpress-inspect", "net.onnx", True),
        ("glyphpress-inspect", "net.onnx_data", True),
        ("glyphpress-inspect", "net.onnx.json", False),
    ],
)
def test_a_hook_runs_for_what_decides(name: str, path: str, runs: bool) -> None:
    assert bool(re.search(HOOKS[name]["files"], path)) is runs
