"""Every command with `--json` has a published schema, and what it prints keeps to that."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import rich_click as click
from PIL import Image

from calibration.load import load
from targets.ssh.deployment import Deployed
from tests.conftest import Finished
from tests.fixtures.digit_files import digit_files
from tests.fixtures.digit_pages import digit_page
from tests.fixtures.official_files import write_split
from tests.fixtures.printed_json import printed_validator
from tests.fixtures.reports import pressed_report
from toolchain.cli.json_schemas import SCHEMAS, STABILITY, published, schema_text
from toolchain.cli.main import glyphpress as program
from toolchain.compress.prune.sensitivity import Curve, Sensitivity, SensitivityPoint

Run = Callable[..., Finished]
PUBLISHED = Path(__file__).parents[3] / "docs" / "schemas"
FLOAT, INT8, TFLITE = "digits.float.onnx", "digits.static-int8.onnx", "digits.float.tflite"
DATA = ("--data", "builtin:digits")
SHORT = ("--runs", 10, "--seconds", "1ms")
TRAIN = ("train", "--data", "builtin:digits[0,1]", "--threads", 1, "--epochs", 1)
GATE = ("gate", "--baseline", TFLITE, "--candidate", INT8, *DATA, "--policy", "smoke")
BY_HAND = {"policy": "toolchain/gate/shipped", "recipe": "toolchain/recipe/shipped"}
"""Schemas of files that users write -> examples."""
QUANTIZE = ("quantize", FLOAT, "-o", "made.onnx", "--scheme")


def with_json(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of a command and of those below it that take --json, with dashes for spaces."""
    if any("--json" in param.opts for param in command.params):
        yield "-".join(path)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from with_json(below, (*path, name))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to read; every test works beside them."""
    folder = tmp_path_factory.mktemp("made")
    digit_files(folder)
    Image.fromarray(digit_page(("31",))).save(folder / "page.png")
    for name in ("first", "second"):
        (folder / name).mkdir()
        pressed_report().save(folder / name / "report.json")
    return folder


def test_every_command_with_json_has_a_schema() -> None:
    assert sorted(set(with_json(program)) - set(SCHEMAS)) == []
    assert set(PRINTED) | set(ELSEWHERE) == set(SCHEMAS), "print each once, here or where ELSEWHERE says"


def test_every_schema_is_valid_says_its_version_and_what_stays() -> None:
    identifiers = set()
    for name in SCHEMAS:
        schema = published(name)
        jsonschema.Draft202012Validator.check_schema(schema)
        if name not in BY_HAND:
            assert schema["properties"]["schema"] == {"const": f"glyphpress/{name}/1"}
            assert schema["$comment"] == STABILITY
        identifiers.add(schema["$id"])
    assert len(identifiers) == len(SCHEMAS)


def test_the_published_files_are_those_of_the_code() -> None:
    files = {path.name.removesuffix(".schema.json"): path.read_text("utf-8") for path in PUBLISHED.iterdir()}
    assert files == {name: schema_text(name) for name in SCHEMAS}, (
        "make them anew: python -m toolchain.cli.json_schemas docs/schemas"
    )


def test_a_reader_of_a_published_schema_accepts_a_later_key() -> None:
    version = {"schema": "glyphpress/version/1", "python": "3.11", "machine": {}, "packages": {}}
    jsonschema.validate(version | {"later": 1}, published("version"))
    for wrong in (version | {"schema": "glyphpress/version/2"}, version | {"python": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, published("version"))


@pytest.mark.parametrize("name", BY_HAND)
def test_the_schema_of_a_file_that_users_write_takes_the_shipped_ones_and_no_unknown_key(
    glyphpress: Run, name: str
) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(glyphpress("schema", name).out))
    for path in (PUBLISHED.parents[1] / BY_HAND[name]).glob("*.toml"):
        tables = json.loads(json.dumps(tomllib.loads(path.read_text("utf-8"))))
        validator.validate(tables)
        assert not validator.is_valid(tables | {"unknown": {}})


PRINTED: dict[str, tuple[Any, ...]] = {
    "inspect": ("inspect", INT8),
    "data-list": ("data", "list"),
    "data-check": ("data", "check", "builtin:digits"),
    "train": (*TRAIN, "-o", "m.pt"),
    "folds": (*TRAIN, "--folds", 2),
    "adopt": ("adopt", "own.onnx", *DATA, "--orientation", "upright"),
    "export": ("export", "own.onnx", "--classes", "0123456789", "--orientation", "upright", "-o", "made.onnx"),
    "quantize": (*QUANTIZE, "dynamic-int8", *DATA),
    "evaluate": ("evaluate", INT8, *DATA, "--errors", 2, "--hypothesis", "50%", "-o", "errors.png"),
    "compare": ("compare", FLOAT, INT8, *DATA),
    "read": ("read", "page.png", "--artifact", INT8),
    "profile": ("profile", FLOAT, INT8, *SHORT),
    "profile-operators": ("profile", FLOAT, "--per-op"),
    "profile-sweep": ("profile", FLOAT, "--sweep-threads", 1, *SHORT),
    "gate": GATE,
    "gate-plan": ("gate", "plan", "--margin", "1pp", "--discordance", "1%"),
    "gate-plan-policy": ("gate", "plan", "--policy", "smoke", "--discordance", "1%", "--classes", 10),
    "gate-baseline": ("gate", "baseline", FLOAT, *DATA, "-o", "base.npz"),
    "recipe-list": ("recipe", "list"),
    "recipe-show": ("recipe", "show", "small"),
    "targets-list": ("targets", "list"),
    "targets-probe": ("targets", "probe", "null"),
    "targets-show": ("targets", "show", "raspberry-pi-4"),
    "report": ("report", "first"),
    "report-runs": ("report", "first", "second"),
    "kiosk": ("kiosk", ".", "--port", 0),
    "plugins": ("plugins", "--all"),
    "version": ("version",),
}
ELSEWHERE = {
    "artifact": "below, of every file that is made here",
    "policy": "below",
    "recipe": "below",
    "verdict": "toolchain/report/test_judgement.py",
    "data-fetch": "toolchain/cli/test_data.py",
    "report-timings": "below",
    "deploy": "below, and toolchain/commands/test_deploy.py",
    "press": "below",
    "demo": "below",
    "profile-list": "below",
    "profile-compare": "below",
    "profile-history": "below",
    "prune": "toolchain/compress/prune/test_prune.py",
    "distill": "below",
    "sensitivity": "below",
    "ranges": "toolchain/quantize/test_ranges.py",
    "explain": "toolchain/explain/test_explanation.py",
    "probe-int8": "toolchain/commands/test_probe_int8.py",
    "targets-setup": "below",
}
"""Where the others are printed. The fixture `glyphpress` holds what any test prints to its schema."""


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, in which the program runs."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "own.onnx").write_bytes((made / FLOAT).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def end(_server: ThreadingHTTPServer, poll_interval: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_command_prints_keeps_to_its_schema(
    name: str, glyphpress: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", end)
    done = glyphpress(*PRINTED[name], "--json")
    assert done.code == 0, done.err
    printed_validator(name).validate(json.loads(done.out))
    for path in folder.glob("*.onnx.json"):
        printed_validator("artifact").validate(json.loads(path.read_text("utf-8")))


def test_what_a_profile_stored_is_printed_by_its_schema(glyphpress: Run, folder: Path) -> None:
    assert glyphpress("profile", FLOAT, *SHORT, "-o", "t.npz").code == 0
    printed_validator("report-timings").validate(json.loads(glyphpress("report", "t.npz", "--json").out))


def test_saved_profiles_are_printed_by_their_schemas(glyphpress: Run, folder: Path) -> None:
    for _ in range(2):
        assert glyphpress("profile", FLOAT, *SHORT, "--save").code == 0
    first, second = sorted((folder / "profiles").iterdir())
    for name, words in {"list": (), "compare": (first, second), "history": ()}.items():
        done = glyphpress("profile", name, *words, "--json")
        printed_validator(f"profile-{name}").validate(json.loads(done.out))


@pytest.mark.parametrize("name", ["press", "demo"])
def test_a_press_prints_its_report_by_the_schema(
    name: str, glyphpress: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A press takes seconds; tests/toolchain/commands/test_press.py and tests/test_privacy.py run real ones.
    monkeypatch.setattr(f"toolchain.commands.press.{name}", lambda *_, **__: pressed_report(0))
    asked = ("press", "cnn-small", *DATA) if name == "press" else ("demo",)
    done = glyphpress(*asked, "--out", "out", "--json")
    printed_validator(name).validate(json.loads(done.out))


def test_a_student_is_described_by_the_schema(glyphpress: Run, checkpoint: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        few = load("builtin:digits", split)
        write_split(tmp_path / "few", "digits", split, few.images[:60], few.labels[:60])
    words = ("distill", checkpoint, "--data", f"{tmp_path}/few:digits", "--epochs", 1, "-o", tmp_path / "s.pt2")
    done = glyphpress(*words, "--json")
    assert done.code == 0, done.err
    printed_validator("distill").validate(json.loads(done.out))


def test_curves_are_printed_by_the_schema(glyphpress: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Real ones take minutes on a busy machine.
    point = SensitivityPoint(0.5, 4, 100, 0.9)
    settings = ("cnn-small", "0" * 64, "structured", "l1", 8, "builtin:digits/train", 100, 0, 0.95, 0.01)
    curves = Sensitivity(
        *settings, (Curve("conv1", ("conv2",), 8, (point,)),), {"fc": "last"}, {"conv1": 0.5}, point, ()
    )
    monkeypatch.setattr("toolchain.commands.compress.sensitivity_of", lambda *_, **__: curves)
    done = glyphpress("sensitivity", "cnn-small", *DATA, "--json")
    printed_validator("sensitivity").validate(json.loads(done.out))


def test_a_deployment_prints_by_the_schema(glyphpress: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Deployed("kiosk", "1", "")
    monkeypatch.setattr("toolchain.commands.deploy.roll_back", lambda *_, **__: there)
    done = glyphpress("deploy", "ssh://pi@kitchen", "--rollback", "--json")
    printed_validator("deploy").validate(json.loads(done.out))


def test_setting_up_a_board_prints_by_the_schema(glyphpress: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targets.null.NullTarget.set_up", lambda *_, **__: ["copied the runner"], raising=False)
    done = glyphpress("targets", "setup", "null", "--json")
    printed_validator("targets-setup").validate(json.loads(done.out))
