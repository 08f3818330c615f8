"""The GitHub Action in .github/actions/gate: its own shell steps, run as GitHub runs them, on real files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.environments import OFFLINE, ROOT, before_install, clean, copied_sources, makes_no_other, wheel_once
from tests.fixtures.small_readers import linear_reader

ACTION = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


class Runner:
    """A stand-in for a runner: its folders, its files for outputs and summary, and the inputs of a step."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.temp = folder / "workspace", folder / "temp"
        self.workspace.mkdir(parents=True)
        self.temp.mkdir()
        self.outputs, self.summary = folder / "outputs", folder / "summary.md"
        self.action = ROOT / ".github/actions/gate"
        self.python = "python3"

    def run(self, step: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the script of a step with inputs, those that are not given at their defaults."""
        chosen = {
            name: inputs.get(name.replace("-", "_"), entry.get("default")) for name, entry in ACTION["inputs"].items()
        }
        values = {f"${{{{ inputs.{name} }}}}": value for name, value in chosen.items()}
        values["${{ steps.python.outputs.python-path }}"] = self.python
        script = self.temp / "script.sh"
        script.write_text(STEPS[step]["run"])
        self.outputs.write_text("")
        self.summary.write_text("")
        env = clean() | OFFLINE | {name: values[value] for name, value in STEPS[step]["env"].items()}
        env |= {
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_OUTPUT": str(self.outputs),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.temp),
        }
        return subprocess.run(
            [*BASH, script], cwd=self.workspace, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    def output(self) -> dict[str, str]:
        lines = self.outputs.read_text().splitlines()
        assert len({line.partition("=")[0] for line in lines}) == len(lines)
        return dict(line.split("=", 1) for line in lines)

    def program(self, name: str, script: str) -> str:
        """Write a program into the action's own environment, and return its path."""
        path = self.temp / "glyphpress/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner on which the action installed itself, in an environment that held the core's requirements alone."""
    folder = tmp_path_factory.mktemp("action")
    machine = before_install(folder / "environment", wheel_once(tmp_path_factory))
    runner = Runner(folder)
    sources = copied_sources(folder / "glyphpress@v0.2.0")
    runner.action = sources / ".github/actions/gate"
    shutil.copytree(ROOT / ".github", sources / ".github")
    runner.python = str(makes_no_other(machine, folder / "python"))
    done = runner.run("Install", baseline="float.onnx", candidate="int8.onnx")
    assert done.returncode == 0, done.stderr
    linear_reader(runner.workspace / "float.onnx")
    linear_reader(runner.workspace / "rounded.onnx", step=1e-4)
    linear_reader(runner.workspace / "broken.onnx", dead=(4, 7))
    return runner


def test_a_file_that_may_ship_passes_with_outputs_summary_and_page(installed: Runner) -> None:
    candidates = "\nrounded.onnx\r\nbroken.onnx\n"
    limits = {"policy": "smoke", "max_size": "1MB"}
    done = installed.run(
        "Gate", baseline="float.onnx", candidate=candidates, data="builtin:digits", html="gate.html", **limits
    )
    assert done.returncode == 0, done.stderr
    assert installed.output() == {"verdict": "pass", "exit-code": "0", "report": "gate.html"}
    assert "rounded.onnx" in installed.summary.read_text()
    assert "rounded.onnx" in (installed.workspace / "gate.html").read_text()
    assert "::notice title=glyphpress gate PASS" in done.stderr


def test_a_worse_file_fails_the_step_by_the_policy_of_the_project(installed: Runner) -> None:
    policy = installed.workspace / "gate.toml"
    policy.write_text('[drop]\nmax = "1pp"\naction = "fail"\n')
    try:
        done = installed.run("Gate", baseline="float.onnx", candidate="broken.onnx", data="builtin:digits")
    finally:
        policy.unlink()
    assert done.returncode == 1, done.stderr
    assert installed.output() == {"verdict": "fail", "exit-code": "1"}
    assert "FAIL" in installed.summary.read_text()
    assert "::error" in done.stderr


def test_what_was_not_judged_is_no_verdict(installed: Runner) -> None:
    done = installed.run(
        "Gate", baseline="float.onnx", candidate="missing.onnx", data="builtin:digits", html="gate.html"
    )
    assert done.returncode == 3
    assert installed.output() == {"verdict": "error", "exit-code": "3"}
    assert "Nothing was judged (exit code 3)" in done.stdout


HOSTILE = "\"; touch hacked; $(touch hacked) `touch hacked` '\n--html=hacked\nverdict=pass"


@pytest.mark.parametrize("name", sorted(ACTION["inputs"].keys() - {"source", "python-version"}))
def test_no_input_becomes_a_command_an_option_or_an_output(name: str, tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    seen = tmp_path / "seen"
    runner.program("glyphpress", f'for word in "$@"; do printf "%s\\0" "$word" >> {seen}; done; exit 1')
    inputs = {"baseline": "float.onnx", "candidate": "int8.onnx", name.replace("-", "_"): HOSTILE}
    done = runner.run("Gate", **inputs)
    assert done.returncode == 1
    assert runner.output() == {"verdict": "fail", "exit-code": "1"}
    assert [*runner.workspace.iterdir()] == []
    _, *words, force = seen.read_bytes().decode().split("\0")[:-1]
    assert force == "--force"
    assert all(word.startswith(("--baseline=", "--candidate=", f"--{name}=")) for word in words)
    lines = HOSTILE.split("\n") if name == "candidate" else [HOSTILE]
    assert {f"--{name}={line}" for line in lines} <= set(words)


def test_scripts_hold_no_expressions() -> None:
    assert all("${{" not in step["run"] for step in STEPS.values() if "run" in step)


@pytest.mark.parametrize(
    ("source", "candidate", "requirement"),
    [
        ("git+https://git.example.org/g@v1", "a.onnx", "glyphpress @ git+https://git.example.org/g@v1"),
        (
            "git+https://git.example.org/g@v1",
            "a.onnx\nb.tflite",
            "glyphpress[litert] @ git+https://git.example.org/g@v1",
        ),
        ("wheels/g.whl", "a.tflite", "wheels/g.whl[litert]"),
        ("glyphpress==0.2.0", "a.tflite", "glyphpress[litert]==0.2.0"),
        ("", "a.onnx", f"{ROOT}/.github/actions/gate/../../.."),
    ],
)
def test_it_installs_what_is_named_with_what_the_files_need(
    source: str, candidate: str, requirement: str, tmp_path: Path
) -> None:
    runner = Runner(tmp_path)
    runner.python = "true"
    runner.program("pip", f'printf "%s\\n" "$@" > {tmp_path / "seen"}')
    done = runner.run("Install", baseline="float.onnx", candidate=candidate, source=source)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text().splitlines() == ["install", "--quiet", requirement]


def test_emnist_is_fetched_before_the_gate_and_what_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    runner.program("glyphpress", f'echo "$1 $2 $GLYPHPRESS_DATA" >> {tmp_path / "seen"}; exit 3')
    done = runner.run("Gate", baseline="float.onnx", candidate="int8.onnx", data="emnist:balanced")
    assert (done.returncode, runner.output()["verdict"]) == (3, "error")
    cache = next(step for step in STEPS.values() if "cache" in step.get("uses", ""))
    assert cache["with"]["path"] == "${{ runner.temp }}/emnist"
    assert (tmp_path / "seen").read_text() == f"data fetch {runner.temp}/emnist\n"
