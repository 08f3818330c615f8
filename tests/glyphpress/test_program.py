"""The program starts whatever the user's own modules are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glyphpress.program import OWN
from toolchain.checkpoint.users_modules import OWN as HIDDEN

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder that is the first on the path, as with `PYTHONPATH=.`."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "glyphpress", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_the_names_that_start_first_are_those_that_a_model_file_may_take() -> None:
    assert OWN == HIDDEN


@pytest.mark.parametrize("name", OWN)
def test_a_module_of_our_name_on_the_path_breaks_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    done = run(tmp_path, "data", "check", "builtin:digits8x8", "-q")
    assert (done.returncode, done.stderr) == (0, "")


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script, whose folder is the first on the path."""
    (folder / "mine.py").write_text(text)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "mine.py"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_a_script_beside_modules_of_our_names_uses_the_api(tmp_path: Path) -> None:
    for name in OWN:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    for api in ("glyphpress.choose_policy(drop=0.01).drop.max", "glyphpress.plugins.Outcome.PASS and 0.01"):
        done = script(tmp_path, f"import glyphpress, glyphpress.plugins\nprint({api})\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "0.01\n", "")


def test_a_module_of_our_name_that_came_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "targets.py").write_text("MINE = 1\n")
    done = script(tmp_path, "import targets, glyphpress\nglyphpress.gate\n")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(f"ImportError: {tmp_path / 'targets.py'} is called like a package of glyphpress")


def test_a_model_file_imports_its_own_siblings_of_our_names(tmp_path: Path) -> None:
    for name in OWN:
        (tmp_path / f"{name}.py").write_text(f"WIDTH_{name.upper()} = 4\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from calibration import WIDTH_CALIBRATION\nfrom targets import WIDTH_TARGETS\n"
        "from toolchain import WIDTH_TOOLCHAIN\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, WIDTH_TARGETS + 6))\n"
    )
    code = "import torch, net; torch.save(net.Net().state_dict(), 'net.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."}, check=True)
    for model in ("net.py:Net", "net:Net"):
        done = run(tmp_path, "inspect", "net.pt", "--model", model, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["parameters"] == 7_850
