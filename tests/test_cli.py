"""The command line as a whole: every help page, every name, every exit code, one voice on stdout and stderr."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

import targets.errors
import toolchain.core.errors
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from toolchain import models
from toolchain.cli import complete, console
from toolchain.cli.main import COMMANDS
from toolchain.cli.main import glyphpress as program
from toolchain.cli.values import Output
from toolchain.core.errors import BUG, EXIT_CODES, exit_code

Run = Callable[..., Finished]
ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "litert_quantizer", "sklearn", "scipy")
DATA = ("--data", "builtin:digits")
RUN = "from toolchain.cli.main import main; main()"


def every_command() -> Iterator[tuple[str, click.Command]]:
    """The path and the command of each leaf, and of each group."""
    root = click.Context(program, info_name="glyphpress")
    for name in COMMANDS:
        command = program.get_command(root, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", one) for sub, one in command.commands.items())


def runs(command: click.Command) -> bool:
    """Whether a command does something by itself, as some groups do."""
    return not isinstance(command, click.Group) or command.invoke_without_command


LEAVES = {path: command for path, command in every_command() if runs(command)}


def parsed(command: click.Command, path: str, words: list[str]) -> click.Context:
    root = click.Context(program, info_name="glyphpress")
    return command.make_context(path, words, parent=root)


def test_every_help_is_fast_and_imports_nothing_heavy() -> None:
    pages = [path.split() for path, _ in every_command()]
    words = (
        "import json, sys, time\n"
        "from toolchain.cli.main import main\n"
        "for page in [[], *json.loads(sys.argv[1])]:\n"
        "    sys.argv, start = ['glyphpress', *page, '--help'], time.process_time()\n"
        "    try:\n        main()\n"
        "    except SystemExit as stop:\n        assert not stop.code, page\n"
        "    assert time.process_time() - start < 2, page\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('HEAVY', found, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", words, json.dumps(pages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "HEAVY []\n"
    assert done.stdout.count("Usage: glyphpress") == len(pages) + 1
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("path", "command"), every_command(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_help_has_a_line_an_example_that_parses_and_its_defaults(path: str, command: click.Command) -> None:
    text = command.help or ""
    assert len(text.splitlines()[0]) <= 120
    assert text.splitlines()[0].endswith(".")
    lines = text.split("Example:\n")[1].strip().splitlines()
    for line in lines:
        assert len(line.strip()) <= 78, "an 80 column terminal would break it"
        # A shell redirection is the shell's.
        words = shlex.split(line.strip().split(" > ")[0])
        assert words[0] == "glyphpress"
        name, *rest = words[1:]
        if name == path.split(maxsplit=1)[0] and name in COMMANDS and rest[:1] != [] and f"{name} {rest[0]}" in LEAVES:
            name, rest = f"{name} {rest[0]}", rest[1:]
        assert name.startswith(path)
        parsed(LEAVES[name], name, rest)
    context = click.Context(command)
    for option in [param for param in command.params if isinstance(param, click.Option)]:
        assert option.help, f"{path} {option.opts[0]} says nothing"
        default = option.get_default(context)
        if not option.is_flag and isinstance(default, str | int | float | tuple) and default != ():
            assert option.show_default, f"{path} {option.opts[0]} has the default {default!r} and does not say so"


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    shown = {path: command.get_short_help_str(1000) for path, command in every_command() if path in COMMANDS}
    assert shown == {name: summary for name, (_, summary) in COMMANDS.items()}


@pytest.mark.parametrize(
    ("words", "near"),
    [
        pytest.param(["gaet"], "gate", id="command"),
        pytest.param(["data", "chek"], "check", id="command of data"),
        pytest.param(["recipe", "sho"], "show", id="command of recipe"),
        pytest.param(["targets", "prob"], "probe", id="command of targets"),
        pytest.param(["gate", "plam"], "plan", id="command of gate"),
        pytest.param(["gate", "init", "--ci", "githup"], "github", id="CI service"),
        pytest.param(["help", "exit-code"], "exit-codes", id="help"),
        pytest.param(["recipe", "show", "static-in8"], "static-int8", id="recipe"),
        pytest.param(
            ["press", "m.pt", *DATA, "--out", "o", "--recipe", "static-in8"], "static-int8", id="press recipe"
        ),
        pytest.param(["targets", "probe", "ort-cup"], "ort-cpu", id="target"),
        pytest.param(["evaluate", "float.onnx", "--data", "emnist:ballanced"], "balanced", id="split"),
        pytest.param(["evaluate", "float.onnx", "--data", "builtin:digit"], "builtin:digits", id="built in"),
        pytest.param(["train", *DATA, "-o", "o.pt", "--model", "cnn-smal"], "cnn-small", id="model"),
        pytest.param(["train", *DATA, "-o", "o.pt", "--preset", "digit"], "digits", id="preset"),
        pytest.param(["quantize", "float.onnx", "-o", "o.onnx", "--scheme", "static"], "static-int8", id="scheme"),
        pytest.param(["prune", "m.pt", *DATA, "-o", "o.pt2", "--method", "magnitud"], "magnitude", id="method"),
        pytest.param(["sensitivity", "m.pt", *DATA, "--importance", "tailor"], "taylor", id="importance"),
        pytest.param(["gate", "--basline", "a.npz"], "--baseline", id="option"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    linear_reader(tmp_path / "float.onnx")
    done = glyphpress(*words)
    assert (done.code, done.out) == (2, "")
    assert near in done.err
    assert done.err.startswith("glyphpress: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "unit"),
    [
        (["gate", "--baseline", "a.npz", "--candidate", "b.npz", "--max-drop", "0.3"], "0.3pp"),
        (["gate", "--baseline", "a.npz", "--candidate", "b.npz", "--max-size", "250"], "KB"),
        (["gate", "--baseline", "a.npz", "--candidate", "b.npz", "--max-p95", "2"], "ms"),
        (["profile", "a.onnx", "--seconds", "2"], "2ms"),
        (["press", "m.pt", *DATA, "--out", "o", "--max-drop", "0.3"], "0.3pp"),
    ],
)
def test_a_bare_number_is_a_usage_error_that_says_so(glyphpress: Run, *, words: list[str], unit: str) -> None:
    done = glyphpress(*words)
    assert (done.code, done.out) == (2, "")
    assert "needs a number and a unit" in done.err
    assert unit in done.err
    assert done.err.count("\n") == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float reader, one that is rounded, and a checkpoint of random weights, in the current folder."""
    from tests.fixtures.checkpoint_files import graph

    linear_reader(tmp_path / "float.onnx")
    linear_reader(tmp_path / "int8.onnx", step=1e-4)
    (tmp_path / "own.onnx").write_bytes(graph().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (["version"], "version"),
        (["recipe", "list"], "recipe-list"),
        (["recipe", "show", "float"], "recipe-show"),
        (["targets", "list"], "targets-list"),
        (["targets", "probe", "null"], "targets-probe"),
        (["data", "list"], "data-list"),
        (["data", "check", "builtin:digits"], "data-check"),
        (["inspect", "float.onnx"], "inspect"),
        (["evaluate", "float.onnx", *DATA], "evaluate"),
        (["compare", "float.onnx", "int8.onnx", *DATA], "compare"),
        (["profile", "float.onnx", "--seconds", "1ms", "--runs", "10"], "profile"),
        (["gate", "--baseline", "float.onnx", "--candidate", "int8.onnx", *DATA, "--policy", "smoke"], "gate"),
        (["gate", "plan", "--margin", "1pp", "--discordance", "1%"], "gate-plan"),
        (["export", "own.onnx", "--classes", "0123456789", "--orientation", "upright", "-o", "made.onnx"], "export"),
        (["quantize", "float.onnx", "--scheme", "dynamic-int8", "-o", "made.onnx"], "quantize"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json_is_one_object_on_stdout_and_nothing_else(
    *, glyphpress: Run, folder: Path, words: list[str], schema: str
) -> None:
    done = glyphpress(*words, "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert json.loads(done.out)["schema"] == f"glyphpress/{schema}/1"


@pytest.mark.parametrize("group", [[], ["data"], ["targets"]], ids=" ".join)
def test_a_group_without_a_command_shows_its_help_as_a_usage_error(glyphpress: Run, group: list[str]) -> None:
    done = glyphpress(*group)
    assert (done.code, done.err) == (2, "")
    assert done.out.startswith(" ".join(["Usage: glyphpress", *group]))
    assert ("Commands:" if group else "Prepare:") in done.out


@pytest.mark.parametrize("way", [("--scheme", "float16"), ("--ranges", "r.json")], ids=lambda way: way[1])
def test_quantize_refuses_a_number_of_calibration_images_where_none_are_read(
    glyphpress: Run, folder: Path, way: tuple[str, str]
) -> None:
    done = glyphpress("quantize", "float.onnx", *DATA, *way, "--calibration-images", "40", "-o", "made.onnx")
    assert (done.code, done.out) == (2, "")
    assert "--calibration-images: " in done.err
    assert done.err.rstrip().split(";")[1].startswith(" leave it out")
    assert not (folder / "made.onnx").exists()


def test_quiet_says_nothing_on_stderr_before_and_after_the_command(glyphpress: Run, folder: Path) -> None:
    assert "evaluate float.onnx 599/599" in glyphpress("evaluate", "float.onnx", *DATA).err
    for words in (["-q", "evaluate"], ["evaluate", "--quiet"]):
        done = glyphpress(*words, "float.onnx", *DATA)
        assert (done.code, done.err) == (0, "")
        assert "accuracy" in done.out
    wrong = glyphpress("-q", "evaluate", "none.onnx", *DATA)
    assert (wrong.code, wrong.err.count("\n")) == (3, 1)
    both = glyphpress("-q", "recipe", "list", "-v")
    assert both.code == 2
    assert "exclude each other" in both.err


def test_verbose_shows_what_converters_say_and_where_it_is_kept(
    glyphpress: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolchain.core import converter_log

    log = folder / "log" / "converters.log"
    monkeypatch.setattr(converter_log, "default_log", lambda: log)
    words = ("quantize", "float.onnx", "--scheme", "dynamic-int8", "--force", "-o", "made.onnx")
    assert glyphpress(*words).err == ""
    first = log.stat().st_size
    loud = glyphpress("-v", *words)
    assert loud.code == 0
    assert str(log) in loud.err
    assert log.read_bytes()[first:].decode().strip() in loud.err
    assert glyphpress(*words).err == ""


@pytest.mark.parametrize("setting", ["NO_COLOR", "CI"])
def test_a_terminal_with_no_color_or_ci_gets_plain_lines(folder: Path, setting: str) -> None:
    words = [sys.executable, "-c", RUN, "evaluate", "float.onnx", *DATA]
    plain = screen(words, {setting: "1"})
    assert "accuracy" in plain
    assert "evaluate float.onnx 599/599" in plain
    assert "\x1b" not in plain


WRITTEN = [
    (path, param.opts[-1])
    for path, command in LEAVES.items()
    for param in command.params
    if isinstance(param.type, Output)
]


def test_every_command_that_writes_a_file_refuses_a_dash(glyphpress: Run, folder: Path) -> None:
    assert len(WRITTEN) >= 20
    for path, option in WRITTEN:
        command = LEAVES[path]
        arguments = [param for param in command.params if isinstance(param, click.Argument) and param.required]
        done = glyphpress(*path.split(), *["a.onnx"] * len(arguments), option, "-")
        assert (done.code, done.out) == (2, ""), path
        assert "'-' does not mean stdout here; give a name" in done.err
    assert not (folder / "-").exists()


def test_help_is_coloured_on_a_terminal_and_never_under_ci() -> None:
    words = [sys.executable, "-c", RUN, "gate", "--help"]
    assert "\x1b[" in screen(words, {})
    # GitHub's runner makes rich force colours.
    assert "\x1b" not in screen(words, {"CI": "true", "GITHUB_ACTIONS": "true"})


def test_help_on_a_terminal_is_drawn_in_boxes_without_importing_rich() -> None:
    program = (
        "import sys\nfrom toolchain.cli.main import main\ntry:\n    main()\nfinally:\n    print('rich' in sys.modules)"
    )
    for page in ([], ["gate"], ["quantize"]):
        seen = screen([sys.executable, "-c", program, *page, "--help"], {})
        lines = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
        assert lines[-1] == "False"
        boxes = [line for line in lines if line[:1] in set("╭│╰")]
        assert {len(line) for line in boxes} == {80}
        assert sum(line.startswith("╭─ Options ─") for line in boxes) == 1
    assert any("│ --calibration [min-max|moving-average|percentile|entropy|mse]" in line for line in lines)


def screen(command: list[str], settings: dict[str, str]) -> str:
    """What a program writes when stdout and stderr are a terminal."""
    side, terminal = pty.openpty()
    plain = {"CI", "NO_COLOR", "GITHUB_ACTIONS", "FORCE_COLOR", "TERM"}
    known = {name: value for name, value in os.environ.items() if name not in plain}
    settings = known | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | settings
    seen = b""
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=settings) as run:
        os.close(terminal)
        # Linux says EIO when the last writer has gone.
        with contextlib.suppress(OSError):
            while more := os.read(side, 65536):
                seen += more
    os.close(side)
    assert run.returncode == 0, seen
    return seen.decode()


def test_bars_stay_on_the_terminal_while_converters_talk_into_their_log(tmp_path: Path) -> None:
    # What a stage does: it announces itself, then sends descriptors 1 and 2 to a log while the bar goes on moving.
    script = tmp_path / "stage.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from toolchain.cli import console\n"
        "from toolchain.core.converter_log import output_to_log\n"
        "with console.progress() as progress:\n"
        "    progress('convert', 0, 0)\n"
        f"    with output_to_log(Path({str(tmp_path / 'log')!r})):\n"
        "        os.write(2, b'noise')\n        time.sleep(0.5)\n"
        "    console.say('a line above the bars')\n"
        "    for done in range(11):\n        progress('count', done, 10)\n        time.sleep(0.03)\n"
        "print('result')\n"
    )
    seen = screen([sys.executable, str(script)], {})
    assert (tmp_path / "log").read_bytes() == b"noise"
    assert "convert" in seen
    assert "a line above the bars\r\n" in seen
    assert re.search(r"count .*\d+/10", seen)
    # The bar without a total is taken away when the next label starts.
    assert "convert" not in seen.split("count")[-1]
    assert seen.rstrip().endswith("result")


def test_lines_in_a_log_are_few(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress() as progress:
        progress("export onnx", 0, 0)
        for step in range(101):
            progress("train", step, 100)
            clock[0] += 0.5
        for _ in range(2):
            progress("evaluate a.onnx", 599, 599)
        for step in range(3):
            progress("timing", step, 2)
            clock[0] += 0.5
    told = capsys.readouterr().err.splitlines()
    steps = [f"train {step}/100" for step in (0, 20, 40, 60, 80, 100)]
    assert told == ["export onnx", *steps, "evaluate a.onnx 599/599", "timing 0/2", "timing 2/2"]


@pytest.mark.parametrize(
    ("args", "begun", "offered"),
    [
        ([], "pr", ["press", "prune", "profile", "probe-int8"]),
        (["recipe"], "s", ["show"]),
        (["press", "--recipe"], "static-int8", ["static-int8", "static-int8-act16", "static-int8-pixels"]),
        (["recipe", "show"], "fl", ["float", "float16"]),
        (["evaluate", "a.onnx", "--target"], "litert-r", ["litert-reference"]),
        (["targets", "probe"], "ort-p", ["ort-precise"]),
        (["profile", "a.onnx", "--target"], "arm64:", ["arm64:cortex-a53", "arm64:cortex-a72", "arm64:cortex-a76"]),
        (["targets", "show"], "raspberry-pi-z", ["raspberry-pi-zero-2"]),
        (["press"], "", ["cnn-small", "cnn-deep"]),
        (["train", "--model"], "cnn-d", ["cnn-deep"]),
        (["train", "--preset"], "fi", ["fine-tune"]),
        (["distill", "cnn-small", "--student"], "cnn-s", ["cnn-small"]),
        (["distill", "cnn-small", "--teacher"], "cn", ["cnn-small", "cnn-deep"]),
        (["gate", "--data"], "emnist:b", ["emnist:byclass", "emnist:bymerge", "emnist:balanced"]),
        (["gate"], "", ["baseline", "init", "plan"]),
        (["gate", "--policy"], "s", ["smoke", "strict"]),
        (["gate", "init", "--ci"], "git", ["github", "gitlab"]),
        (["data", "check"], "builtin", ["builtin:digits", "builtin:digits8x8"]),
        (["nonsense"], "tra", ["train"]),
        pytest.param(["help"], "ex", ["exit-codes", "export", "explain"], id="row39-topics"),
        pytest.param(["help", "gate"], "", ["baseline", "init", "plan"], id="row39-below a group"),
        pytest.param(["help", "gate", "init"], "", [], id="row39-below a command"),
    ],
)
def test_the_shell_completes_names(
    args: list[str], begun: str, offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    assert [item.value for item in completer.get_completions(args, begun)] == offered


def test_the_help_of_press_names_the_models_that_come_with_weights(glyphpress: Callable) -> None:
    text = glyphpress("press", "--help").out
    assert models.shipped_names()
    assert [name for name in models.shipped_names() if name not in text] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", ""], "an argument is empty"),
        (["gate", "init", "--ci", ""], "the value of --ci is empty"),
        (["press", "cnn-small", "--data", "builtin:digits", "--out", ""], "the value of --out is empty"),
        (["press", "cnn-small", "--data=", "--out", "out"], "the value of --data is empty"),
        (["data", "fetch", "--url", ""], "the value of --url is empty"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_an_empty_word_is_neither_the_current_folder_nor_left_out(
    words: list[str], said: str, glyphpress: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = glyphpress(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_what_is_no_name_is_completed_as_a_file() -> None:
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    for args in (["press"], ["press", "--recipe"], ["press", "--data"]):
        assert [item.type for item in completer.get_completions(args, "my-")] == ["file"]


@pytest.mark.parametrize(
    ("args", "begun", "offered"),
    [
        (["press"], "", ["cnn-small", "cnn-deep", "a b.pt", "c.onnx", "data/", "runs/"]),
        (["distill", "cnn-small", "--teacher"], "", ["cnn-small", "cnn-deep", "a b.pt", "c.onnx", "data/", "runs/"]),
        (["inspect"], "c", ["cnn-small", "cnn-deep", "c.onnx", "c.tflite"]),
        (["prune"], "runs/", ["runs/best.safetensors"]),
        (["gate", "--policy"], "", ["default", "smoke", "strict", "gate.toml", "data/", "runs/"]),
        (["gate", "--data"], "bu", ["builtin:digits", "builtin:digits8x8"]),
        (["press", "--data"], "", ["builtin:digits", "builtin:digits8x8", "data/", "runs/"]),
        (["export"], "ru", ["ru"]),
    ],
)
def test_files_are_offered_beside_names(
    args: list[str], begun: str, offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a b.pt", "c.onnx", "c.tflite", "gate.toml", "notes.txt", ".hidden.pt", "runs/best.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    found = [item.value for item in completer.get_completions(args, begun)]
    assert [name for name in found if not name.startswith("emnist:")] == offered


def test_completion_knows_every_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from toolchain.recipe import shipped

    completer = ShellComplete(program, {}, "glyphpress", "_GLYPHPRESS_COMPLETE")
    assert {item.value for item in completer.get_completions(["press", "--recipe"], "")} == set(shipped())


def test_bash_completes_data_through_its_colons_without_importing_anything_heavy() -> None:
    # Bash hands `emnist:ba` over as three words, and replaces only the last.
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr))\n"
        f"{RUN}"
    )
    asked = {"_GLYPHPRESS_COMPLETE": "bash_complete", "COMP_WORDS": "glyphpress press --data emnist : ba"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | asked | {"COMP_CWORD": "5"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("plain,balanced\n", "[]\n")


def test_the_completion_script_is_printed(glyphpress: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GLYPHPRESS_COMPLETE", "bash_source")
    done = glyphpress()
    assert done.code == 0
    assert "complete -o nosort -F _glyphpress_completion glyphpress" in done.out
    assert complete.RECIPE  # the callbacks are imported with the program, so the script needs no others


def families(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for below in root.__subclasses__():
        yield from families(below)


DOCUMENTED = {
    **dict.fromkeys(
        ("GlyphpressError", "CheckpointError", "StageError", "ParityError", "TaintedRun", "EvidenceError"), 3
    ),
    "ClassesUnknown": 3,
    "OptionNeeded": 3,
    "PreprocessUnknown": 3,
    "PreprocessTied": 3,
    **dict.fromkeys(("UsageProblem", "PolicyError", "UnknownData", "UnknownTarget"), 2),
    **dict.fromkeys(("DataError", "DataNotFound", "CorruptData", "EmptyData", "TestLeak", "DownloadFailed"), 3),
    **dict.fromkeys(("TargetError", "ArtifactError", "RunFailed", "Misplaced", "ConnectionLost"), 3),
    **dict.fromkeys(("PackageMissing", "ReaderMissing", "TargetUnavailable"), 4),
    "GateFailed": 1,
    "GateInconclusive": 5,
}


def test_every_error_of_the_tree_has_the_exit_code_of_its_family() -> None:
    import calibration.download
    import toolchain.commands.press

    roots = (toolchain.core.errors.GlyphpressError, calibration.errors.DataError, targets.errors.TargetError)
    found = {error.__name__: exit_code(error("x")) for root in roots for error in families(root)}
    assert found == DOCUMENTED
    assert exit_code(PermissionError()) == 3
    assert exit_code(KeyboardInterrupt()) == 130


def test_help_lists_every_family_of_exit_codes(glyphpress: Run) -> None:
    listed = {int(line.split()[0]) for line in glyphpress("help", "exit-codes").out.splitlines()}
    assert listed == {0} | {code for _, code in EXIT_CODES}


def raising(error: BaseException) -> Callable[[], click.Command]:
    @click.command()
    def broken() -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (toolchain.core.errors.StageError("it broke\nin two lines; mend it"), 3, "it broke in two lines; mend it"),
        (PermissionError(13, "Permission denied", "/x/y"), 3, "/x/y: Permission denied; give a path that you may"),
        (OSError(28, "No space left on device"), 3, "No space left on device; free some space"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted; m.pt holds epoch 2"), 130, "interrupted; m.pt holds epoch 2"),
    ],
    ids=["stage", "permission", "disk", "ctrl-c", "ctrl-c in training"],
)
def test_an_error_is_one_line(
    *, glyphpress: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setitem(COMMANDS, "demo", ("tests.test_cli:planted", "Break."))
    monkeypatch.setitem(globals(), "planted", raising(error))
    done = glyphpress("demo")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"glyphpress: {line}")
    assert done.err.count("\n") == 1


def test_a_bug_keeps_its_traceback_and_looks_like_no_verdict(glyphpress: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "demo", ("tests.test_cli:planted", "Break."))
    monkeypatch.setitem(globals(), "planted", raising(ZeroDivisionError("by design")))
    done = glyphpress("demo")
    assert done.code == BUG == 70
    assert "Traceback (most recent call last)" in done.err
    assert "ZeroDivisionError: by design" in done.err
    assert done.err.splitlines()[-1].startswith("glyphpress: this is a bug")


def test_a_reader_that_goes_away_is_no_error_on_the_screen() -> None:
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(RUN)} schema recipe | head -n 1"
    done = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_version_is_one_line(glyphpress: Run) -> None:
    done = glyphpress("--version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"glyphpress \d+\.\d+\.\d+\S*\n", done.out)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Python's own handler: a suite that was started in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interruption_waits_for_the_converter() -> None:
    from toolchain.core.interrupt import held

    steps: list[str] = []

    def convert() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            steps.append("the converter finished")
        steps.append("and the next one started")

    with pytest.raises(KeyboardInterrupt):
        convert()
    assert steps == ["the converter finished"]


def test_an_interruption_inside_the_garbage_collector_is_not_lost() -> None:
    from toolchain.core.interrupt import heard

    sent: list[str] = []

    def callback(phase: str, _info: dict[str, int]) -> None:
        if not sent:
            sent.append(phase)
            signal.raise_signal(signal.SIGTERM)

    def stage() -> None:
        with heard():
            gc.collect()
            time.sleep(5)

    gc.callbacks.append(callback)
    try:
        with pytest.raises(KeyboardInterrupt):
            stage()
    finally:
        gc.callbacks.remove(callback)
    assert sent


@pytest.mark.parametrize("words", [("recipe", "list"), ("--help",)], ids=" ".join)
def test_a_pipe_that_was_closed_never_looks_like_a_failed_gate(words: tuple[str, ...]) -> None:
    """As in `glyphpress ... | head`, which leaves before everything is written."""
    command = [sys.executable, "-c", "from toolchain.cli.main import main; main()", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        said = run.stderr.read()
    assert (run.returncode, said) == (0, "")
