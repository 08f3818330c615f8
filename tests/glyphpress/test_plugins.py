"""The example package: one plug-in of each kind, installed by pip and used through the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.shell_completion import ShellComplete

import glyphpress.plugins
from calibration.load import load
from glyphpress.registry import KINDS
from tests.conftest import Finished
from tests.fixtures.plugin_packages import install, on_path
from tests.fixtures.small_readers import linear_reader, ridge
from toolchain.cli.main import glyphpress as program
from toolchain.evaluation.evaluate import Evaluation

Run = Callable[..., Finished]
ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "Artifact", "ArtifactError", "CorruptData", "FileFormat", "Inspection", "Limit", "LimitDefinition", "LocalTarget",
    "MarginLimit", "Outcome", "Pairs", "Quantize", "Recipe", "RunFailed", "RuntimeFacts", "RuntimeSession", "Scheme",
    "Session", "Sources", "StageError", "Stored", "StoredTensor", "Target", "TargetUnavailable", "TensorCodec",
    "TensorSpec", "Verdict", "cpu_name", "parse_recipe",
}  # fmt: skip
"""A name that is taken out of here is a new major version."""
EXAMPLE = "glyphpress-example 0.1.0"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example is installed."""
    folder = tmp_path_factory.mktemp("example")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    source = shutil.copytree(ROOT / "examples" / "plugin", folder / "source", ignore=ignored)
    return install(source, folder / "site")


@pytest.fixture(autouse=True)
def used(installed: Path) -> Iterator[None]:
    """Let Python find the example."""
    with on_path(installed):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with float.onnx, the same rounded as mini.linear, digits.npz and gate.toml."""
    linear_reader(tmp_path / "float.onnx")
    weights, bias = ridge(load("builtin:digits", "train"))
    text = json.dumps({"weights": weights.T.round(3).tolist(), "bias": bias.tolist()})
    (tmp_path / "mini.linear").write_text(text)
    digits = load("builtin:digits", "train")
    np.savez(tmp_path / "digits.npz", images=digits.images, labels=digits.labels, classes=digits.classes)
    (tmp_path / "gate.toml").write_text('[errors]\nmax = "30pp"\n[flips]\nmax = "20pp"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


GATE = ("gate", "--baseline", "float.onnx", "--candidate", "mini.linear", "--data", "digits.npz", "--policy")
ADOPT = ("adopt", "mini.linear", "--data", "digits.npz", "--orientation", "upright", "--scale", "0-1")


def test_the_types_are_those_promised() -> None:
    assert set(glyphpress.plugins.__all__) == set(dir(glyphpress.plugins)) == NAMES
    for name in NAMES:
        assert getattr(glyphpress.plugins, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Targets'"):
        _ = glyphpress.plugins.Targets


def test_one_of_each_kind_loads(glyphpress: Run) -> None:
    listed = json.loads(glyphpress("plugins", "--json").out)["plugins"]
    assert [row["kind"] for row in listed] == list(KINDS)
    assert {(row["package"], row["version"], row["state"], row["reason"]) for row in listed} == {
        ("glyphpress-example", "0.1.0", "loads", "")
    }
    off = glyphpress("--no-plugins", "plugins")
    assert off.out.count("off: plug-ins are turned off") == len(KINDS)


def test_a_gate_names_every_plug_in_that_took_part(glyphpress: Run, folder: Path) -> None:
    assert glyphpress(*ADOPT).code == 0
    assert glyphpress("evaluate", "float.onnx", "--data", "digits.npz", "-o", "float.npz").code == 0
    assert f"reader npz of {EXAMPLE}" in map(str, Evaluation.load(folder / "float.npz").plugins)
    outputs = ("--verdict", "verdict.json", "--junit", "junit.xml", "--evidence", "evidence.json")
    done = glyphpress(*GATE, "gate.toml", *outputs)
    assert done.code == 0, done.err
    assert "PASS         errors: " in done.out
    took_part = [f"{plugin} of {EXAMPLE}" for plugin in ("format linear", "limit errors", "reader npz", "target numpy")]
    assert [line.split("    ", 1)[1] for line in done.out.splitlines() if line.startswith("plug-in ")] == [
        f"{plugin} took part" for plugin in took_part
    ]
    verdict = json.loads((folder / "verdict.json").read_text())
    assert [f"{row['kind']} {row['name']} of {row['package']} {row['version']}" for row in verdict["plugins"]] == (
        took_part
    )
    junit = ET.parse(folder / "junit.xml").getroot()
    assert [row.get("value") for row in junit.iter("property") if row.get("name") == "plug-ins"] == [
        ", ".join(took_part)
    ]
    (folder / "other.toml").write_text('[flips]\nmax = "20pp"\n')
    again = glyphpress("gate", "--from", "evidence.json", "--policy", "other.toml")
    assert f"reader npz of {EXAMPLE} took part" in again.out
    (folder / "strict.toml").write_text('[errors]\nmax = "0.1pp"\n')
    strict = glyphpress("gate", "--from", "evidence.json", "--policy", "strict.toml")
    assert strict.code == 1
    assert "FAIL         errors: " in strict.out


@pytest.mark.parametrize(
    ("words", "plugin"),
    [
        ((*GATE, "gate.toml"), "limit errors"),
        (("evaluate", "mini.linear", "--data", "builtin:digits"), "format linear"),
        (("evaluate", "float.onnx", "--data", "digits.npz"), "reader npz"),
        (("profile", "float.onnx", "--target", "numpy"), "target numpy"),
        (("press", "float.onnx", "--data", "builtin:digits", "--recipe", "rounded-onnx", "--out", "o"), "recipe"),
        (("train", "--model", "softmax", "--data", "builtin:digits", "-o", "s.pt"), "model softmax"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gate_and_every_other_command_can_refuse_foreign_code(
    glyphpress: Run, folder: Path, words: tuple[str, ...], plugin: str
) -> None:
    done = glyphpress("--no-plugins", *words)
    assert (done.code, done.err.count("\n")) == (4, 1), done.err
    assert plugin in done.err
    assert "plug-ins are turned off" in done.err


def test_a_policy_and_its_schema_explain_a_foreign_limit(glyphpress: Run, folder: Path) -> None:
    assert "errors" in json.loads(glyphpress("schema", "policy").out)["properties"]
    assert glyphpress("gate", "init", "-o", "new.toml").code == 0
    text = (folder / "new.toml").read_text()
    assert "# Share of images that the candidate reads wrongly, whatever the baseline reads.\n#[errors]\n" in text
    (folder / "typo.toml").write_text('[erors]\nmax = "5pp"\n')
    typo = glyphpress(*GATE, "typo.toml")
    assert (typo.code, "did you mean errors" in typo.err) == (2, True)


def test_a_model_a_recipe_and_a_scheme_go_through_a_press(glyphpress: Run, folder: Path) -> None:
    trained = glyphpress("train", "--model", "softmax", "--data", "builtin:digits", "--epochs", "1", "-o", "softmax.pt")
    assert trained.code == 0, trained.err
    (folder / "gate.toml").write_text('[flips]\nmax = "20pp"\n')
    words = ("--recipe", "rounded-onnx", "--format", "onnx", "--seconds", "10ms", "--policy", "gate.toml", "--out", "o")
    done = glyphpress("press", "softmax.pt", "--data", "builtin:digits", *words)
    assert done.code == 0, done.err
    sidecar = json.loads((folder / "o" / "softmax.rounded-onnx.onnx.json").read_text())
    assert sidecar["tools"]["glyphpress-example"] == "0.1.0"
    assert sidecar["notes"] == []
    report = json.loads((folder / "o" / "report.json").read_text())
    packed = {row["name"]: row["packed"] for row in report["rows"]}
    assert packed["softmax.rounded-onnx.onnx"] < 0.6 * packed["softmax.float.onnx"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["press", "--recipe"], "rounded-onnx"),
        (["profile", "--target"], "numpy"),
        (["train", "--model"], "softmax"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_completion_knows_their_names(words: list[str], name: str) -> None:
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    assert [item.value for item in completer.get_completions(words, name[:-1])] == [name]


def test_a_new_process_completes_a_foreign_scheme() -> None:
    """In this one the schemes that an option takes are those that were there when its command was imported."""
    command = [sys.executable, "-c", "from toolchain.cli.main import main; main()"]
    asked = {
        "_GLYPHPRESS_COMPLETE": "bash_complete",
        "COMP_WORDS": "glyphpress quantize --scheme rou",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(command, env=os.environ | asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("plain,rounded\n", "")
