"""The CI files as a project copies them: their own commands, run in a folder with real files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.fixtures.small_readers import linear_reader
from toolchain.ci import SERVICES, ci_text, write_policy
from toolchain.commands.gate import store_baseline
from toolchain.gate.policy import choose_policy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ("gate.junit.xml", "gate.sarif", "gate.md", "gate.flips.png", "verdict.json", "evidence.json")


@dataclass(frozen=True)
class Job:
    """What a service runs, word for word, in a shell as that service starts one, and what it sets there.

    make: what makes the baseline where there is none, empty where the service leaves that to others.
    """

    make: tuple[str, ...]
    gate: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


def github(workflow: dict[str, Any]) -> Job:
    steps = workflow["jobs"]["gate"]["steps"]
    runs = {step["name"]: step["run"] for step in steps if "run" in step}
    # How GitHub runs a step that names no shell.
    make, gate = (("bash", "-e", "-c", runs[name]) for name in ("Make the baseline", "Gate"))
    return Job(make, gate, workflow["env"] | {"GITHUB_ACTIONS": "true"})


def gitlab(jobs: dict[str, Any]) -> Job:
    make, gate = (("bash", "-eo", "pipefail", "-c", line) for line in jobs["gate"]["script"])
    return Job(make, gate, jobs["gate"]["variables"])


def pre_commit(config: dict[str, Any]) -> Job:
    (hook,) = config["repos"][0]["hooks"]
    assert hook["pass_filenames"] is False
    return Job((), tuple(shlex.split(hook["entry"].replace("images:balanced", "builtin:digits"))))


READ: dict[str, Callable[[dict[str, Any]], Job]] = {"github": github, "gitlab": gitlab, "pre-commit": pre_commit}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder: gate.toml, the float model, and `glyphpress` on the path."""
    linear_reader(tmp_path / "model.float.onnx")
    write_policy("smoke", tmp_path / "gate.toml")
    program = tmp_path / "bin" / "glyphpress"
    program.parent.mkdir()
    call = "from toolchain.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(call)} "$@"\n')
    program.chmod(0o755)
    return tmp_path


def ran(command: tuple[str, ...], job: Job, project: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{project / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "DATA": "builtin:digits"}
    env = os.environ | job.settings | environment | {"GITHUB_STEP_SUMMARY": str(project / "summary.md")}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_its_own_commands_pass_an_honest_candidate_and_stop_any_other(service: str, project: Path) -> None:
    job = READ[service](yaml.safe_load(ci_text(service)))
    if job.make:
        made = ran(job.make, job, project)
        assert made.returncode == 0, made.stderr
    else:
        store_baseline(project / "model.float.onnx", choose_policy("smoke"), "builtin:digits", project / "baseline.npz")
    # The baseline stands in for the float model from here on.
    (project / "model.float.onnx").unlink()
    linear_reader(project / "model.int8.onnx", step=1e-4)
    passed = ran(job.gate, job, project)
    assert passed.returncode == 0, passed.stderr
    assert "PASS" in passed.stdout
    linear_reader(project / "model.int8.onnx", dead=(4, 7))
    failed = ran(job.gate, job, project)
    assert failed.returncode == 1, failed.stderr
    assert "FAIL: model.int8.onnx (drop" in failed.stderr
    if service != "pre-commit":
        assert all((project / name).is_file() for name in RESULTS)
        assert ElementTree.parse(project / "gate.junit.xml").getroot().find(".//failure") is not None
    if service == "github":
        assert "::error" in failed.stdout + failed.stderr
        assert "FAIL" in (project / "summary.md").read_text()


def test_inconclusive_is_said_and_stops_too(project: Path) -> None:
    job, other = (READ[service](yaml.safe_load(ci_text(service))) for service in ("gitlab", "github"))
    policy = choose_policy("default")
    write_policy("default", project / "gate.toml", force=True)
    store_baseline(project / "model.float.onnx", policy, "builtin:digits", project / "baseline.npz")
    linear_reader(project / "model.int8.onnx", step=1e-4)
    done = ran(job.gate, job, project)
    assert done.returncode == 5, done.stderr
    assert "Inconclusive: neither passed nor failed" in done.stdout
    # GitHub's step is the same script but for the words.
    ours, theirs = (re.sub(r"\s*(echo|#).*|\s+", "", steps.gate[-1]) for steps in (job, other))
    assert ours == theirs


def test_a_cached_baseline_is_made_again_when_the_model_changes() -> None:
    steps = {step.get("name"): step for step in yaml.safe_load(ci_text("github"))["jobs"]["gate"]["steps"]}
    keys = {steps[name]["with"]["key"] for name in ("Restore the baseline", "Keep the baseline")}
    (key,) = keys
    assert all(word in key for word in ("gate.toml", "env.MODEL", "installed.txt"))
    assert "installed.txt" in steps["Install"]["run"]
    job = yaml.safe_load(ci_text("gitlab"))["gate"]
    assert job["cache"]["key"]["files"] == ["gate.toml", job["variables"]["MODEL"]]


def test_results_are_kept_also_when_the_gate_fails() -> None:
    steps = {step.get("name"): step for step in yaml.safe_load(ci_text("github"))["jobs"]["gate"]["steps"]}
    assert steps["Keep the results"]["with"]["path"].split() == list(RESULTS)
    for name in ("Keep the results", "Show what failed in the Security tab"):
        assert "!cancelled()" in steps[name]["if"]
    artifacts = yaml.safe_load(ci_text("gitlab"))["gate"]["artifacts"]
    assert (artifacts["when"], artifacts["paths"]) == ("always", list(RESULTS))
    assert artifacts["reports"] == {"junit": "gate.junit.xml"}


def test_the_hook_runs_for_what_decides_and_for_nothing_else() -> None:
    (hook,) = yaml.safe_load(ci_text("pre-commit"))["repos"][0]["hooks"]
    for name in ("model.int8.onnx", "model.int8.onnx.json", "baseline.npz", "gate.toml"):
        assert re.search(hook["files"], name)
    for name in ("model.float.onnx", "train.py", "model_int8_onnx", "docs/gate.toml.md"):
        assert not re.search(hook["files"], name)


def test_a_written_policy_is_what_the_ci_files_read(project: Path) -> None:
    assert tomllib.loads((project / "gate.toml").read_text()) == choose_policy("smoke").to_dict()
    assert all("--policy gate.toml" in ci_text(service) for service in SERVICES)
