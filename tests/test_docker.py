"""The Dockerfile without Docker: its rules, what it copies, and what it runs, in a folder in place of an image's root.

Building the images needs a daemon and their base from a registry; neither is asked for here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fixtures.environments import OFFLINE, ROOT, SOURCES, before_install, clean, makes_no_other, wheel_once
from tests.fixtures.small_readers import linear_reader

Line = tuple[str, str]
"""(instruction, the rest)."""


@dataclass
class Stage:
    """A stage of the Dockerfile. base: an image, or the name of an earlier stage."""

    base: str
    lines: list[Line] = field(default_factory=list)


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    for line in filter(None, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        else:
            [*found.values()][-1].lines.append((instruction, rest))
    return found


STAGES = stages()


def whole(name: str) -> list[Line]:
    """Return the instructions of a stage behind those of the stages it begins from."""
    base = STAGES[name].base
    return [*(whole(base) if base in STAGES else ()), *STAGES[name].lines]


def last(name: str, instruction: str) -> str:
    return [rest for word, rest in whole(name) if word == instruction][-1]


@pytest.mark.parametrize("name", ["gate", "press"])
def test_an_image_runs_the_program_as_a_user_without_rights(name: str) -> None:
    assert int(last(name, "USER").partition(":")[0]) > 0
    assert json.loads(last(name, "ENTRYPOINT")) == ["glyphpress"]
    user = [word for word, _ in whole(name)].index("USER")
    assert all(word != "RUN" for word, _ in whole(name)[user:])


def test_the_gate_is_built_by_default_and_without_torch() -> None:
    assert [*STAGES][-1] == "gate"
    assert all("[press]" not in rest for _, rest in [*whole("gate"), *whole("sources")])
    assert any("[press]" in rest for word, rest in whole("press-sources") if word == "RUN")


def test_images_come_from_one_base_that_stays_the_same() -> None:
    bases = {stage.base for stage in STAGES.values()} - STAGES.keys()
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {word for kind, rest in whole("press-sources") if kind == "COPY" for word in rest.split()[:-1]}
    assert copied == allowed == {*SOURCES, "requirements.lock"}
    assert all((ROOT / name).exists() for name in allowed)


def test_its_own_steps_make_a_program_that_gates(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    machine = before_install(tmp_path / "environment", wheel_once(tmp_path_factory))
    makes_no_other(machine, tmp_path / "python")
    folder, prefix = tmp_path, tmp_path / "glyphpress"
    for instruction, rest in whole("sources"):
        if instruction == "WORKDIR":
            folder = tmp_path / rest.lstrip("/")
            folder.mkdir()
        elif instruction == "COPY":
            *sources, target = rest.split()
            for name in sources:
                _copy(ROOT / name, folder / target)
        else:
            assert instruction == "RUN"
            env = clean() | OFFLINE | {"PATH": f"{tmp_path}:{os.defpath}"}
            script = rest.replace("/opt/glyphpress", str(prefix))
            subprocess.run(["sh", "-c", script], cwd=folder, env=env, check=True, capture_output=True)
    linear_reader(tmp_path / "float.onnx")
    linear_reader(tmp_path / "broken.onnx", dead=(4, 7))
    (program,) = json.loads(last("gate", "ENTRYPOINT"))
    words = ("gate", "--data", "builtin:digits", "--policy", "smoke", "--candidate", "broken.onnx")
    env = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [prefix / "bin" / program, *words, "--baseline", "float.onnx"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
