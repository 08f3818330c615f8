"""The laws about who may import whom, and what must not be imported at all until it is used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {"calibration": {"toolchain", "targets"}, "targets": {"toolchain", "calibration"}}
HEAVY = ("torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "litert_quantizer", "sklearn", "scipy")


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a module imports anywhere, in functions and for type checks too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where things live"
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            # The catalogs name modules as "package.module:Class".
            names.add(node.value.split(":")[0].split(".")[0])
    return names


@pytest.mark.parametrize("leaf", FORBIDDEN)
def test_the_leaves_import_neither_the_press_nor_each_other(leaf: str) -> None:
    modules = list((ROOT / leaf).rglob("*.py"))
    assert len(modules) > 3
    broken = {str(path.relative_to(ROOT)): found for path in modules if (found := imported(path) & FORBIDDEN[leaf])}
    assert broken == {}


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("def f():\n    from toolchain.core.files import whole_file\nT = {'x': 'calibration.idx:Read'}\n")
    assert {"toolchain", "calibration"} <= imported(module)


def test_statistics_stand_on_numpy_scipy_and_the_errors_alone() -> None:
    modules = list((ROOT / "toolchain" / "stats").glob("*.py"))
    assert len(modules) > 4
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    foreign = {name for name in names if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "scipy"}}
    above = {name for name in foreign if not name.startswith("toolchain.stats")}
    assert {name.split(".")[-1] for name in above} == {"errors"}


@pytest.mark.parametrize("words", [["--help"], ["version", "--json"], ["targets", "--help"], ["profile", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['glyphpress', *{words!r}]\n"
        "from toolchain.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('HEAVY', found, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr


def test_collecting_the_tests_imports_neither_torch_nor_tensorflow() -> None:
    """Both take seconds, and each process collects every file: `tests.fixtures.lazy` imports torch on use."""
    program = (
        "import pytest, sys\n"
        "code = pytest.main(['tests', '--collect-only', '-q', '-p', 'no:cacheprovider'])\n"
        "print('HEAVY', sorted({'torch', 'tensorflow', 'jax', 'litert_torch', 'sklearn'} & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = re.search(r"^(\d+) tests collected", done.stdout, re.MULTILINE)
    assert collected
    assert int(collected[1]) > 3000
    assert done.stdout.endswith("HEAVY []\n"), done.stdout[-200:]


def test_no_test_module_imports_another() -> None:
    """What tests share stands in a conftest or in a module of its own, such as those of `tests/fixtures/`."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert len(files) > 150
    lines = re.compile(r"^\s*(?:from|import) .*\btest_\w+", re.MULTILINE)
    broken = {str(path.relative_to(ROOT)): found for path in files if (found := lines.findall(path.read_text("utf-8")))}
    assert broken == {}
