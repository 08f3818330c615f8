"""What the program's streams and its locale can be like, and that none of it decides how a run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from targets.metadata import load_artifact
from tests.fixtures.small_readers import linear_reader, pair, written

ROOT = Path(__file__).resolve().parents[1]
# A shell's background job ignores SIGINT, and so would its children.
RUN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from toolchain.cli.main import main; main()"
)
WORDS = {"pass": "good.npz", "fail": "bad.npz"}
CODES = {"pass": 0, "fail": 1}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with saved evaluations: float.npz, and good.npz and bad.npz against it."""
    folder = tmp_path_factory.mktemp("verdicts")
    base, good = pair(30, 20, 18_800)
    base.save(folder / "float.npz")
    good.save(folder / "good.npz")
    worse = (good.labels + (good.sample_ids.astype(int) < 900)) % 10
    written(worse, good.labels, name="bad.onnx").save(folder / "bad.npz")
    return folder


def shell(folder: Path, words: str, streams: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program from a shell with its streams as `streams` says."""
    command = f'"{sys.executable}" -c "{RUN}" {words} {streams}'
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("verdict", WORDS)
@pytest.mark.parametrize(
    "streams",
    [
        pytest.param("2>/dev/full", id="row52-stderr full"),
        pytest.param("2>&-", id="row53-stderr closed"),
        pytest.param(">&-", id="row53-stdout closed"),
        pytest.param("<&- >&- 2>&-", id="row53-all closed"),
        pytest.param("| true", id="row40-stdout read by nobody"),
        pytest.param("2> >(true)", id="row52-stderr read by nobody"),
    ],
)
def test_a_verdict_keeps_its_code_whatever_the_streams_are(verdicts: Path, streams: str, verdict: str) -> None:
    done = shell(verdicts, f"gate --baseline float.npz --candidate {WORDS[verdict]} --policy smoke", streams)
    assert done.returncode == CODES[verdict], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("verdict", "code"), [("pass", 3), ("fail", 1)])
def test_row52_results_that_could_not_be_written_are_no_pass(verdicts: Path, verdict: str, code: int) -> None:
    words = f"gate --baseline float.npz --candidate {WORDS[verdict]} --policy smoke --json"
    done = shell(verdicts, words, ">/dev/full")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if verdict == "pass":
        assert done.stderr.splitlines()[-1].startswith("glyphpress: stdout: No space left on device")


def test_row53_nothing_that_is_printed_lands_in_a_file_that_got_a_closed_descriptor(tmp_path: Path) -> None:
    linear_reader(tmp_path / "float.onnx")
    done = shell(tmp_path, "quantize float.onnx --scheme dynamic-int8 -o q.onnx", "<&- >&- 2>&-")
    assert done.returncode == 0
    assert load_artifact(tmp_path / "q.onnx").recipe == "dynamic-int8"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".npz") == [
        "float.onnx",
        "float.onnx.json",
        "q.onnx",
        "q.onnx.json",
    ]


# Python turns UTF-8 on for LANG=C by itself; these keep it from that, as other single-byte locales do.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UMLAUTS = ("ä", "ö", "ü", "ß", "é", "字", "😀", "7", "8", "9")


def test_row57_classes_outside_ascii_in_a_locale_without_them(tmp_path: Path) -> None:
    linear_reader(tmp_path / "float.onnx", classes=UMLAUTS)
    done = shell(tmp_path, "quantize float.onnx --scheme dynamic-int8 -o q.onnx", **ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_artifact(tmp_path / "q.onnx").classes == UMLAUTS
    shown = shell(tmp_path, "inspect q.onnx --json", **ASCII)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["schema"] == "glyphpress/inspect/1"
    assert shell(tmp_path, "inspect q.onnx", **ASCII).returncode == 0


# Says when the program's imports begin: what the interpreter does before that is not the program's.
STARTS = (
    "import sys\n"
    "class Says:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name in ('rich_click', 'toolchain.core.interrupt'):\n"
    "            print(flush=True)\n            sys.meta_path.remove(self)\n"
    "sys.meta_path.insert(0, Says())\n"
)


@pytest.mark.parametrize("milliseconds", [0, 20, 50, 100, 200])
def test_row60_ctrl_c_while_the_program_starts_leaves_no_traceback(tmp_path: Path, milliseconds: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS + RUN, "recipe", "list"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        run.stdout.readline()
        time.sleep(milliseconds / 1000)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode in {0, 130, -signal.SIGINT}
    assert err in {"", "glyphpress: interrupted\n"}


SLOW = (
    # A suite that runs under nohup hands an ignored SIGHUP down.
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "import sys, time\nfrom pathlib import Path\nfrom toolchain.cli import main as program\n"
    "import rich_click as click\n"
    "from toolchain.core.converter_log import output_to_log\n"
    "@click.command()\ndef slow():\n"
    "    with output_to_log(Path('log')):\n"
    "        Path('started').touch()\n        deadline = time.monotonic() + 2\n"
    "        while time.monotonic() < deadline: time.sleep(0.05)\n"
    "    Path('went on').touch()\n    time.sleep(5)\n"
    "program.COMMANDS['demo'] = 'slow:slow', 'Wait.'\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: f"row60-{one.name}")
def test_a_signal_during_a_conversion_is_answered_at_once_and_obeyed_after_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "tmp").mkdir()
    settings = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(
        [sys.executable, "-c", f"import slow; {RUN}", "demo"],
        cwd=tmp_path,
        env=os.environ | settings,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        run.send_signal(number)
        assert run.stderr
        assert run.stderr.readline() == "stopping after this step\n"
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err == f"glyphpress: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
    assert not (tmp_path / "went on").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_row60_a_hang_up_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from toolchain.core.interrupt import heard\n"
        "with heard():\n    os.kill(os.getpid(), signal.SIGHUP)\nprint('still here')\n"
    )
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)
    assert done.stdout == "still here\n"


def test_warnings_of_libraries_reach_only_those_who_ask_for_them() -> None:
    program = (
        "import copyreg, sys, warnings\nfrom toolchain.cli import help\n"
        "def warn(**_): warnings.warn_explicit('deprecated', FutureWarning, copyreg.__file__, 105)\n"
        "help.version.callback = warn\n"
        "sys.argv = ['glyphpress', 'version']\nfrom toolchain.cli.main import main\nmain()\n"
    )
    for options, expected in (([], False), (["-W", "default"], True)):
        command = [sys.executable, *options, "-c", program]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert ("FutureWarning: deprecated" in done.stderr) == expected
