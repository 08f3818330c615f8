"""The CI files as a project copies them: their own commands, run on a machine that has Python, and real files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.fixtures.environments import Environment, before_install, environment, wheel_once
from tests.fixtures.small_readers import linear_reader
from toolchain import ci
from toolchain.ci import SERVICES, Job, ci_text, write_policy
from toolchain.ci.source import Source, read_source
from toolchain.commands.gate import store_baseline
from toolchain.core.errors import UsageProblem
from toolchain.gate.policy import choose_policy

pytestmark = pytest.mark.slow

SOURCE = Source("glyphpress==0.2.0")


@pytest.fixture(autouse=True)
def _unpushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --install there is no source, wherever these tests run: not even that of a checkout with a remote."""
    monkeypatch.setattr(ci, "installed_source", lambda: None)


RESULTS = ("gate.junit.xml", "gate.sarif", "gate.md", "gate.flips.png", "verdict.json", "evidence.json")


@dataclass(frozen=True)
class Steps:
    """What a service runs, word for word, in a shell as that service starts one, and what it sets there.

    prepare: installs and fetches images; empty where the service leaves that to others.
    """

    prepare: tuple[tuple[str, ...], ...]
    gate: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


def github(workflow: dict[str, Any]) -> Steps:
    steps = workflow["jobs"]["gate"]["steps"]
    runs = {step["name"]: step["run"] for step in steps if "run" in step}
    emnist = workflow["env"]["DATA"].startswith("emnist:")
    assert [step["if"] for step in steps if step.get("name") == "Images"] == ["startsWith(env.DATA, 'emnist:')"]
    names = ("Install", *["Images"] * emnist, "Gate")
    # How GitHub runs a step that names no shell.
    *prepare, gate = (("bash", "-e", "-c", runs[name]) for name in names)
    return Steps(tuple(prepare), gate, workflow["env"] | {"GITHUB_ACTIONS": "true"})


def gitlab(jobs: dict[str, Any]) -> Steps:
    job = jobs["gate"]
    *prepare, gate = (("bash", "-eo", "pipefail", "-c", line) for line in job["before_script"] + job["script"])
    return Steps(tuple(prepare), gate, job["variables"])


def pre_commit(config: dict[str, Any]) -> Steps:
    (hook,) = config["repos"][0]["hooks"]
    assert hook["pass_filenames"] is False
    return Steps((), tuple(shlex.split(hook["entry"])))


READ: dict[str, Callable[[dict[str, Any]], Steps]] = {"github": github, "gitlab": gitlab, "pre-commit": pre_commit}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_once(tmp_path_factory)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder: gate.toml and the float model."""
    linear_reader(tmp_path / "model.float.onnx")
    write_policy("smoke", tmp_path / "gate.toml")
    return tmp_path


def ran(
    command: tuple[str, ...], steps: Steps, project: Path, machine: Environment
) -> subprocess.CompletedProcess[str]:
    return machine.run_any(*command, cwd=project, **steps.settings, GITHUB_STEP_SUMMARY=str(project / "summary.md"))


@pytest.mark.parametrize("service", SERVICES)
def test_its_own_commands_install_pass_an_honest_candidate_and_stop_any_other(
    service: str, project: Path, wheel: Path
) -> None:
    job = Job(data="builtin:digits")
    if service == "pre-commit":
        machine = environment(project / "environment", wheel)
        steps = pre_commit(yaml.safe_load(ci_text(service, job)))
        store_baseline(project / "model.float.onnx", choose_policy("smoke"), "builtin:digits", project / "baseline.npz")
    else:
        machine = before_install(project / "environment", wheel)
        shutil.copy(wheel, project)
        job = replace(job, source=read_source(wheel.name, project))
        steps = READ[service](yaml.safe_load(ci_text(service, job)))
    for command in steps.prepare:
        done = ran(command, steps, project, machine)
        assert done.returncode == 0, done.stderr
    linear_reader(project / "model.int8.onnx", step=1e-4)
    passed = ran(steps.gate, steps, project, machine)
    assert passed.returncode == 0, passed.stderr
    assert "PASS" in passed.stdout
    linear_reader(project / "model.int8.onnx", dead=(4, 7))
    failed = ran(steps.gate, steps, project, machine)
    assert failed.returncode == 1, failed.stderr
    assert "FAIL: model.int8.onnx (drop" in failed.stderr
    if service != "pre-commit":
        assert all((project / name).is_file() for name in RESULTS)
        assert ElementTree.parse(project / "gate.junit.xml").getroot().find(".//failure") is not None
    if service == "github":
        assert "::error" in failed.stdout + failed.stderr
        assert "FAIL" in (project / "summary.md").read_text()


def test_inconclusive_is_said_and_stops_too(project: Path, wheel: Path) -> None:
    job = Job(SOURCE, data="builtin:digits")
    steps, others = (READ[service](yaml.safe_load(ci_text(service, job))) for service in ("gitlab", "github"))
    policy = choose_policy("default")
    write_policy("default", project / "gate.toml", force=True)
    store_baseline(project / "model.float.onnx", policy, "builtin:digits", project / "baseline.npz")
    linear_reader(project / "model.int8.onnx", step=1e-4)
    done = ran(steps.gate, steps, project, environment(project / "environment", wheel))
    assert done.returncode == 5, done.stderr
    assert "Inconclusive: neither passed nor failed" in done.stdout
    # GitHub's step is the same script but for the words.
    ours, theirs = (re.sub(r"\s*(echo|#).*|\s+", "", service.gate[-1]) for service in (steps, others))
    assert ours == theirs


@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_a_committed_baseline_stands_in_for_the_model(service: str, project: Path, wheel: Path) -> None:
    steps = READ[service](yaml.safe_load(ci_text(service, Job(SOURCE, data="builtin:digits"))))
    store_baseline(project / "model.float.onnx", choose_policy("smoke"), "builtin:digits", project / "baseline.npz")
    (project / "model.float.onnx").unlink()
    linear_reader(project / "model.int8.onnx", dead=(4, 7))
    done = ran(steps.gate, steps, project, environment(project / "environment", wheel))
    assert "FAIL: model.int8.onnx (drop" in done.stderr


def test_nothing_but_the_official_images_is_cached() -> None:
    """A service restores a cache over what was checked out, and its key cannot follow every image."""
    steps = yaml.safe_load(ci_text("github", Job(SOURCE)))["jobs"]["gate"]["steps"]
    cached = [step["with"] for step in steps if "cache" in step.get("uses", "")]
    job = yaml.safe_load(ci_text("gitlab", Job(SOURCE)))["gate"]
    assert cached == [{"path": "${{ env.GLYPHPRESS_DATA }}", "key": "glyphpress-emnist"}]
    assert job["cache"] == [{"paths": [job["variables"]["GLYPHPRESS_DATA"]], "key": "glyphpress-emnist"}]


def test_only_the_gate_decides_whether_a_pass_is_green() -> None:
    workflow = yaml.safe_load(ci_text("github", Job(SOURCE)))
    (upload,) = (step for step in workflow["jobs"]["gate"]["steps"] if "upload-sarif" in step.get("uses", ""))
    assert upload["continue-on-error"] is True
    # What GitHub asks of the upload in a private repository.
    assert workflow["permissions"] == {"contents": "read", "security-events": "write", "actions": "read"}


def test_results_are_kept_also_when_the_gate_fails() -> None:
    steps = {step.get("name"): step for step in yaml.safe_load(ci_text("github", Job(SOURCE)))["jobs"]["gate"]["steps"]}
    assert steps["Keep the results"]["with"]["path"].split() == list(RESULTS)
    for name in ("Keep the results", "Show what failed in the Security tab"):
        assert "!cancelled()" in steps[name]["if"]
    artifacts = yaml.safe_load(ci_text("gitlab", Job(SOURCE)))["gate"]["artifacts"]
    assert (artifacts["when"], artifacts["paths"]) == ("always", list(RESULTS))
    assert artifacts["reports"] == {"junit": "gate.junit.xml"}


def test_the_hook_runs_for_what_decides_and_for_nothing_else() -> None:
    (hook,) = yaml.safe_load(ci_text("pre-commit"))["repos"][0]["hooks"]
    weights = ("model.int8.onnx.data", "model.int8.onnx_data", "model.int8.data")
    for name in ("model.int8.onnx", "model.int8.onnx.json", *weights, "baseline.npz", "gate.toml"):
        assert re.search(hook["files"], name)
    for name in ("model.float.onnx", "train.py", "model_int8_onnx", "docs/gate.toml.md"):
        assert not re.search(hook["files"], name)


def test_a_written_policy_is_what_the_ci_files_read(project: Path) -> None:
    assert tomllib.loads((project / "gate.toml").read_text()) == choose_policy("smoke").to_dict()
    assert all("--policy gate.toml" in ci_text(service, Job(SOURCE)) for service in ("github", "gitlab"))


@pytest.mark.parametrize("service", ["github", "gitlab"])
@pytest.mark.parametrize("data", ["emnist:balanced[A-Z]", "images:balanced", "builtin:digits"])
def test_emnist_is_fetched_into_a_cache_and_other_images_are_not(service: str, data: str) -> None:
    text = ci_text(service, Job(SOURCE, data=data))
    steps = READ[service](yaml.safe_load(text))
    # The steps between installing and the gate, with a program that only says how it was called.
    script = "glyphpress() { echo $*; }\n" + "\n".join(command[-1] for command in steps.prepare[1:])
    said = subprocess.run(["bash", "-e", "-c", script], env=steps.settings, capture_output=True, text=True, check=True)
    assert said.stdout == ("data fetch\n" if data.startswith("emnist:") else "")
    assert re.search(r"(path: |paths: \[)(glyphpress-emnist|\$\{\{ env.GLYPHPRESS_DATA \}\})", text), (
        "562 MB in every run"
    )


def test_a_tflite_file_brings_its_runtime() -> None:
    text = ci_text("github", Job(SOURCE, candidate="model.int8.tflite"))
    assert yaml.safe_load(text)["env"]["GLYPHPRESS"] == "glyphpress[litert]==0.2.0"


def test_the_hook_comes_from_the_repository_that_is_named() -> None:
    source = read_source("git+https://git.example.org/them/glyphpress@v0.2.0")
    (repository,) = yaml.safe_load(ci_text("pre-commit", Job(source, candidate="a b.tflite")))["repos"]
    assert (repository["repo"], repository["rev"]) == ("https://git.example.org/them/glyphpress", "v0.2.0")
    (hook,) = repository["hooks"]
    assert hook["args"][hook["args"].index("--candidate") + 1] == "a b.tflite"
    assert re.search(hook["files"], "a b.tflite")
    assert hook["additional_dependencies"] == [".[litert]"]


@pytest.mark.parametrize("name", ["${{ secrets.TOKEN }}", "$CI_TOKEN", "-rf", 'a\nb: "c"'])
def test_no_name_can_mean_more_than_a_name(name: str) -> None:
    with pytest.raises(UsageProblem, match="cannot stand in a CI file"):
        ci_text("github", Job(SOURCE, candidate=name))


@pytest.mark.parametrize("service", SERVICES)
def test_quotes_and_colons_stay_in_their_name(service: str) -> None:
    name = """it's: a "#1" \\ <DATA>.onnx"""
    found = yaml.safe_load(ci_text(service, Job(None if service == "pre-commit" else SOURCE, candidate=name)))
    steps = READ[service](found)
    assert name in (steps.gate if service == "pre-commit" else steps.settings.values())
