"""Bad input through the real program: one line that says what is wrong and what to do, and nothing is left or lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration import atomic_files
from targets.preprocess import Preprocess
from tests.conftest import Finished
from tests.fixtures.lazy import torch
from tests.fixtures.small_readers import linear_reader, written
from toolchain import models
from toolchain.checkpoint import CheckpointRequest, settle
from toolchain.models.saving import save

Run = Callable[..., Finished]
ROOT = Path(__file__).resolve().parents[1]
DATA = ("--data", "builtin:digits")
BALANCED = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
RUN = (
    # A shell's background job ignores SIGINT, and so would its children.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from toolchain.cli.main import main; main()"
)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything a user might give, whole and broken."""
    folder = tmp_path_factory.mktemp("bad")
    linear_reader(folder / "float.onnx")
    linear_reader(folder / "nan.onnx", nan=True)
    linear_reader(folder / "foreign-nan.onnx", nan=True)
    (folder / "foreign-nan.onnx.json").unlink()
    linear_reader(folder / "letters.onnx", classes=tuple("ABCDEFGHIJ"))
    written(np.zeros(4, np.int64), np.zeros(4, np.int64)).save(folder / "other.npz")
    whole = (folder / "float.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    _checkpoints(folder)
    (folder / "cut.pt").write_bytes((folder / "digits.pt").read_bytes()[:5000])
    (folder / "empty.pt").touch()
    _pictures(folder)
    (folder / "empty.toml").touch()
    (folder / "chance.toml").write_text('[baseline]\nmin_accuracy = "0.1%"\n[drop]\nmax = "50pp"\n')
    (folder / "warns.toml").write_text('[drop]\nmax = "1pp"\naction = "warn"\n')
    (folder / "typo.toml").write_text('[drop]\nmaximum = "1pp"\n')
    (folder / "quantize-twice.toml").write_text(
        'name = "x"\n' + '[[steps]]\nkind = "quantize"\nscheme = "static-int8"\n' * 2
    )
    return folder


def _checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    common = {"model": "cnn-small", "options": {}, "preprocess": Preprocess().to_dict()}
    module = models.build("cnn-small", 10)
    save(folder / "digits.pt", module, common | {"classes": list("0123456789")})
    save(folder / "balanced.pt", models.build("cnn-small", 47), common | {"classes": list(BALANCED)})
    torch.save(models.build("cnn-small", 47).state_dict(), folder / "bare-balanced.pt")
    with torch.no_grad():
        for weights in module.parameters():
            weights.fill_(float("nan"))
    save(folder / "nan.pt", module, common | {"classes": list("0123456789")})
    shapes = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 3, 3), "fc.weight": (1000, 512)}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "resnet.pt")


def _pictures(folder: Path) -> None:
    (folder / "no-pictures").mkdir()
    (folder / "no-pictures" / "a").mkdir()
    (folder / "nothing").mkdir()
    chance = np.random.default_rng(0)
    for place in ("one-class/a", "pictures/a", "pictures/b"):
        (folder / place).mkdir(parents=True)
        for number in range(4):
            pixels = chance.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
    (folder / "pictures" / "b" / "scan.png").write_bytes(b"this is no picture")


@pytest.fixture
def place(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, which is the current one."""
    shutil.copytree(bad, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def contents(folder: Path) -> dict[str, str]:
    """What is in a folder, hidden things too: a digest of each file."""
    entries = sorted(folder.rglob("*"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in entries}


def one_line(err: str) -> str:
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    assert err.startswith("glyphpress: ")
    return err


NO_FILE = [
    pytest.param(["inspect", "none.pt"], 3, "none.pt: no such file.*; give", id="inspect"),
    pytest.param(["press", "none.pt", *DATA, "--out", "o"], 3, "none.pt: no such file.*; give", id="press"),
    pytest.param(["export", "none.pt", "-o", "o.onnx"], 3, "none.pt: no such file.*; give", id="export"),
    pytest.param(["prune", "none.pt", *DATA, "-o", "o.pt2"], 3, "none.pt: no such file.*; give", id="prune"),
    pytest.param(["quantize", "none.onnx", *DATA, "-o", "o.onnx"], 3, "none.onnx: no such file", id="quantize"),
    pytest.param(["evaluate", "none.onnx", *DATA], 3, "none.onnx: no such file; give", id="evaluate"),
    pytest.param(["compare", "none.npz", "float.onnx", *DATA], 3, "none.npz: no such file", id="compare"),
    pytest.param(["profile", "none.onnx"], 3, "none.onnx: no such file; give", id="profile"),
    pytest.param(["ranges", "none.json"], 3, "none.json: no such file", id="ranges"),
    pytest.param(["probe-int8", "none.onnx"], 3, "none.onnx: no such file", id="probe-int8"),
    pytest.param(
        ["quantize", "digits.pt", *DATA, "-o", "o.onnx"], 3, "neither .*`glyphpress export", id="unquantizable"
    ),
    pytest.param(["report", "nothing"], 3, "no report there; give the folder", id="report"),
    pytest.param(["report", "none"], 3, "no report there; give the folder", id="report of nothing"),
    pytest.param(["evaluate", "float.onnx", "--data", "none"], 3, "no folder none; --data takes", id="data"),
    pytest.param(["recipe", "show", "none.toml"], 2, "no such recipe file; `glyphpress recipe list`", id="recipe"),
    pytest.param(["evaluate", "nothing", *DATA], 2, "is a directory; see", id="folder for a file"),
    pytest.param(["press", "nothing", *DATA, "--out", "o"], 3, "is a folder, not a checkpoint; name", id="folder"),
]
IMAGES = [
    pytest.param(
        ["train", "--data", "pictures", "-o", "o.pt"], 3, "scan.png is not a readable picture.*; remove", id="train"
    ),
    pytest.param(
        ["evaluate", "float.onnx", "--data", "pictures"], 3, "scan.png is not a readable picture", id="no picture"
    ),
    pytest.param(["data", "check", "pictures"], 3, "scan.png is not a readable picture.*; remove", id="check"),
    pytest.param(["evaluate", "float.onnx", "--data", "nothing"], 3, "no class subfolders; put", id="empty"),
    pytest.param(["train", "--data", "nothing", "-o", "o.pt"], 3, "no class subfolders; put", id="train empty"),
    pytest.param(["train", "--data", "no-pictures", "-o", "o.pt"], 3, "no-pictures", id="empty class"),
    pytest.param(["train", "--data", "one-class", "-o", "o.pt"], 3, "a single class, 'a'", id="one class"),
    pytest.param(
        ["press", "digits.pt", "--data", "one-class", "--out", "o"], 3, "a single class", id="press one class"
    ),
]
ANOTHER_MODEL = [
    pytest.param(
        ["press", "resnet.pt", "--model", "cnn-small", *DATA, "--out", "o"],
        3,
        "not a checkpoint of CnnSmall: missing features.conv1.weight.*unexpected.*fc.weight.*--model",
        id="ResNet",
    ),
    pytest.param(
        ["export", "resnet.pt", "--model", "cnn-small", *DATA, "-o", "o.onnx"],
        3,
        "not a checkpoint of CnnSmall",
        id="ResNet, export",
    ),
    pytest.param(
        ["press", "balanced.pt", *DATA, "--out", "o"],
        3,
        "trained on 47 classes, the data has 10; give",
        id="47 classes",
    ),
    pytest.param(
        ["prune", "balanced.pt", *DATA, "-o", "o.pt2"], 3, "trained on 47 classes, the data has 10", id="47, prune"
    ),
    pytest.param(
        ["export", "bare-balanced.pt", "--model", "cnn-small", *DATA, "-o", "o.onnx"],
        3,
        r"classifier.weight is \[47, 128\], the model wants \[10, 128\].*; it was trained on 47 classes, not 10; give",
        id="47 classes, bare",
    ),
    pytest.param(["press", "cut.tflite", *DATA, "--out", "o"], 3, "TFLite.*cannot be pressed; give", id="an artifact"),
]
NOT_FINITE = [
    pytest.param(["evaluate", "nan.onnx", *DATA], 3, "logits of 1 of 1 images are not finite.*; the", id="evaluate"),
    pytest.param(["compare", "float.onnx", "nan.onnx", *DATA], 3, "nan.onnx: logits of .* not finite", id="compare"),
    pytest.param(
        ["gate", "--baseline", "float.onnx", "--candidate", "nan.onnx", *DATA, "--max-drop", "99pp"],
        3,
        "nan.onnx: logits of .* not finite",
        id="gate",
    ),
    pytest.param(
        ["evaluate", "foreign-nan.onnx", *DATA], 3, "foreign-nan.onnx|does not read these images.*; give", id="foreign"
    ),
    pytest.param(["press", "foreign-nan.onnx", *DATA, "--out", "o"], 3, "foreign-nan.onnx", id="press"),
    pytest.param(["export", "nan.pt", "-o", "o.onnx"], 3, "NaN or infinity.*; the weights are broken", id="weights"),
    pytest.param(["export", "nan.pt", "-o", "o.tflite"], 3, "NaN or infinity", id="weights, tflite"),
    pytest.param(["press", "nan.pt", *DATA, "--out", "o"], 3, "NaN or infinity", id="weights, press"),
    pytest.param(["prune", "nan.pt", *DATA, "-o", "o.pt2"], 3, "NaN or infinity", id="weights, prune"),
    *[
        pytest.param(
            ["quantize", "nan.onnx", "--scheme", scheme, *DATA, "-o", "o.onnx"],
            3,
            "nan.onnx",
            id=scheme,
        )
        for scheme in ("dynamic-int8", "static-int8")
    ],
]
CUT_OFF = [
    pytest.param(["inspect", "cut.onnx"], 3, "cut off; export", id="inspect onnx"),
    pytest.param(["inspect", "cut.tflite"], 3, "cut off or damaged .*; export", id="inspect tflite"),
    pytest.param(["evaluate", "cut.onnx", *DATA], 3, "not an ONNX model, or a truncated one.*; export", id="onnx"),
    pytest.param(["evaluate", "cut.tflite", *DATA], 3, "not a TFLite model, or a truncated one.*; export", id="tflite"),
    pytest.param(["profile", "cut.tflite"], 3, "not a TFLite model, or a truncated one", id="profile"),
    pytest.param(["quantize", "cut.onnx", *DATA, "-o", "o.onnx"], 3, "truncated", id="quantize"),
    pytest.param(["quantize", "cut.tflite", *DATA, "-o", "o.tflite"], 3, "cut.tflite", id="quantize tflite"),
    pytest.param(["press", "cut.onnx", *DATA, "--out", "o"], 3, "cut off; export", id="press"),
    pytest.param(["export", "cut.pt", "-o", "o.onnx"], 3, "cut off or damaged .*; save or copy", id="checkpoint"),
    pytest.param(["export", "empty.pt", "-o", "o.onnx"], 3, r"empty \(0 bytes\); save or copy", id="empty checkpoint"),
]
GATE = ["gate", "--baseline", "float.onnx", "--candidate"]
FOREIGN_EVIDENCE = [
    pytest.param(
        ["gate", "--baseline", "other.npz", "--candidate", "float.onnx", *DATA], 3, "other images", id="other images"
    ),
    pytest.param([*GATE, "letters.onnx", *DATA], 3, "letters.onnx.*classes", id="other classes"),
    pytest.param([*GATE, "float.onnx", *DATA, "--policy", "empty.toml"], 2, "limits nothing.*; add", id="empty policy"),
    pytest.param([*GATE, "float.onnx", *DATA, "--policy", "typo.toml"], 2, "did you mean max", id="unknown key"),
    pytest.param([*GATE, "float.onnx"], 2, "is an artifact.*--data", id="no images"),
    pytest.param([*GATE, "float.onnx", "--data", "nothing"], 3, "no class subfolders; put", id="zero images"),
    pytest.param([*GATE, "none.onnx", *DATA], 3, "none.onnx: no such file; give", id="no candidate"),
    pytest.param([*GATE, "cut.onnx", *DATA], 3, "cut.onnx: not an ONNX model, or a truncated one", id="cut candidate"),
    pytest.param([*GATE, "float.onnx", *DATA, "--policy", "warns.toml"], 2, "only warns", id="nothing can fail"),
    pytest.param([*GATE, "float.onnx", *DATA, "--policy", "strikt"], 2, "did you mean strict", id="no such policy"),
    pytest.param(["gate", "--from", "none.json"], 3, "none.json: no such evidence; ", id="no evidence"),
    pytest.param(["gate", "--from", "float.onnx"], 3, "float.onnx: not stored evidence .*again", id="a model"),
    pytest.param(["gate", "--from", "other.npz"], 3, "a saved evaluation; .* as --baseline", id="an evaluation"),
    pytest.param(["gate", "--from", "float.onnx.json"], 3, "is the sidecar of a model; give", id="a sidecar"),
    pytest.param(
        ["press", "digits.pt", *DATA, "--recipe", "quantize-twice.toml", "--out", "o"],
        2,
        "quantize must be the last step.*; see",
        id="impossible recipe",
    ),
]
NOT_OVER_THIS = [
    pytest.param(["train", *DATA, "-o", "digits.pt"], 2, "already there; .*--force", id="train"),
    pytest.param(["export", "digits.pt", "-o", "float.onnx"], 2, "already there; .*--force", id="export"),
    pytest.param(["quantize", "float.onnx", *DATA, "-o", "nan.onnx"], 2, "already there; .*--force", id="quantize"),
    pytest.param(["evaluate", "float.onnx", *DATA, "-o", "other.npz"], 2, "already there; .*--force", id="evaluate"),
    pytest.param(["profile", "float.onnx", "-o", "other.npz"], 2, "already there; .*--force", id="profile"),
    pytest.param(
        [*GATE, "float.onnx", *DATA, "--evidence", "other.npz"], 2, "already there; .*--force", id="gate's evidence"
    ),
    pytest.param([*GATE, "float.onnx", *DATA, "--junit", "cut.pt"], 2, "already there; .*--force", id="gate's report"),
    pytest.param(
        ["press", "digits.pt", *DATA, "--out", "pictures"], 2, "already there and holds no report.json", id="press"
    ),
    pytest.param(
        ["press", "digits.pt", *DATA, "--out", "pictures", "--force"],
        2,
        "not even --force replaces it",
        id="a stranger's folder",
    ),
    pytest.param(
        ["export", "digits.pt", "-o", "/dev/null/o.onnx"],
        2,
        "is not a folder that can be written to",
        id="under a file",
    ),
    pytest.param(
        ["press", "digits.pt", *DATA, "--out", "float.onnx/o"],
        2,
        "is not a folder that can be written to",
        id="press there",
    ),
    pytest.param(["export", "digits.pt", "-o", "o.xyz"], 2, "let it end in .onnx, .ort or .tflite", id="no format"),
]


LONG = "x" * 300
# By access(2) root may do everything in /proc, which takes no files.
NOT_THERE = [
    pytest.param(words, 2, f"{re.escape(words[-1])} cannot be written: ", id=f"{words[0]} {words[-2]} {words[-1][:6]}")
    for words in (
        ["train", *DATA, "-o", "/proc/o.pt"],
        ["train", *DATA, "-o", "o.pt", "--log", "/proc/o.csv"],
        ["train", *DATA, "-o", "o.pt", "--curve", "/proc/o.svg"],
        ["train", *DATA, "--model", "random-forest", "-o", "/proc/o.onnx"],
        ["prune", "digits.pt", *DATA, "-o", "/proc/o.pt2"],
        ["distill", "digits.pt", *DATA, "-o", "/proc/o.pt2"],
        ["sensitivity", "digits.pt", *DATA, "-o", "/proc/o.json"],
        ["press", "digits.pt", *DATA, "--out", "/proc/o"],
        ["press", "digits.pt", *DATA, "--out", LONG],
        ["quantize", "float.onnx", *DATA, "-o", "/proc/o.onnx"],
        ["quantize", "float.onnx", *DATA, "-o", "o.onnx", "--save-ranges", "/proc/o.json"],
        ["evaluate", "float.onnx", *DATA, "--csv", "/proc/o.csv"],
        ["evaluate", "float.onnx", *DATA, "-o", f"{LONG}.npz"],
        ["evaluate", "float.onnx", *DATA, "-o", f"{'x/' * 2500}o.npz"],
        ["profile", "float.onnx", "-o", "/proc/o.npz"],
        ["profile", "float.onnx", "--out", "/proc/o"],
        [*GATE, "float.onnx", *DATA, "--junit", "/proc/o.xml"],
        [*GATE, "float.onnx", *DATA, "--evidence", "/proc/o.json"],
    )
] + [
    pytest.param(
        ["train", *DATA, "-o", f"{'x' * 250}.pt"], 2, "x.pt.resume cannot be written: its name is too long", id="state"
    ),
    pytest.param(
        ["train", *DATA, "-o", "digits.pt", "--resume"],
        2,
        "there is no digits.pt.resume to continue from, and digits.pt is already there",
        id="nothing to resume",
    ),
]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [*NO_FILE, *IMAGES, *ANOTHER_MODEL, *NOT_FINITE, *CUT_OFF, *FOREIGN_EVIDENCE, *NOT_OVER_THIS, *NOT_THERE],
)
def test_one_line_says_what_is_wrong_and_nothing_changes(
    *, glyphpress: Run, place: Path, words: list[str], code: int, told: str
) -> None:
    before = contents(place)
    done = glyphpress("-q", *words)
    assert (done.code, done.out) == (code, ""), done.err
    assert re.search(told, one_line(done.err)), done.err
    assert contents(place) == before


@pytest.mark.parametrize("words", [["export", "digits.pt", "-o", "shut/o.onnx"], ["train", *DATA, "-o", "shut/o.pt"]])
def test_a_folder_that_may_not_be_written_is_said_before_the_work(
    *, glyphpress: Run, place: Path, words: list[str]
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: NOT checked that a folder without write permission is refused")
    (place / "shut").mkdir(mode=0o500)
    done = glyphpress("-q", *words)
    assert done.code == 2
    assert "is not a folder that can be written to; name another place" in one_line(done.err)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "float.onnx", *DATA, "--csv", "new/o.csv"],
        [*GATE, "float.onnx", *DATA, "--policy", "chance.toml", "--verdict", "new/o.json"],
        [*GATE, "float.onnx", *DATA, "--policy", "chance.toml", "--evidence", "new/o.json"],
    ],
    ids=lambda words: f"{words[0]} {words[-2]}",
)
def test_a_file_that_cannot_be_written_after_the_work_costs_no_result(
    *, glyphpress: Run, place: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_parts: object, **_settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(place)
    monkeypatch.setattr(atomic_files, "place_files", full)
    done = glyphpress("-q", *words, "--json")
    assert done.code == 3
    assert f"{words[-1]}: No space left on device; free some space" in one_line(done.err)
    assert json.loads(done.out)["schema"] == f"glyphpress/{words[0]}/1"
    assert contents(place) == before


@pytest.mark.parametrize("code", [0, 1])
def test_a_model_whose_code_ends_the_program_is_neither_done_nor_a_failed_gate(
    code: int, glyphpress: Callable[..., Finished], place: Path
) -> None:
    (place / "exits.py").write_text(f"import sys\n\ndef make():\n    sys.exit({code})\n")
    done = glyphpress("inspect", "digits.pt", "--model", "exits.py:make")
    assert (done.code, done.out) == (3, "")
    assert "called sys.exit before the work was done" in one_line(done.err)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a disk of 300 KB is mounted for the commands of `on_small_disk`."""
    place = tmp_path_factory.mktemp("disk")
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
    try:
        allowed = subprocess.run(mount, capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no mount namespace may be made here (that takes root): NOT checked on a full disk")
    return place


def on_small_disk(disk: Path, words: list[str], **settings: str) -> tuple[int, str, str, list[str]]:
    """Run a command with a disk mounted that has one page free; return its code, stdout, stderr and what it left."""
    script = (
        'mount -t tmpfs -o size=300k none "$0" && head -c 300000 /dev/zero > "$0/taken" || exit 99\n'
        '"$@"; code=$?; echo ----; ls -A "$0"; exit $code'
    )
    command = ["unshare", "-m", "sh", "-c", script, str(disk), sys.executable, "-c", RUN, "-q", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    out, left = done.stdout.split("----\n")
    return done.returncode, out, done.stderr, left.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["export", "digits.pt", "-o", "DISK/o.tflite"],
        ["quantize", "float.onnx", "--scheme", "dynamic-int8", "-o", "DISK/o.onnx"],
        ["evaluate", "float.onnx", *DATA, "-o", "DISK/a/b/o.npz"],
        ["train", *DATA, "--epochs", "1", "--threads", "1", "-o", "DISK/o.pt"],
        ["press", "digits.pt", *DATA, "--format", "onnx", "--policy", "chance.toml", "--out", "DISK/o"],
        pytest.param(
            ["prune", "digits.pt", *DATA, "--epochs", "0", "-o", "DISK/o.pt2"],
        ),
    ],
    ids=lambda words: f"{words[0]} {Path(words[-1]).suffix}",
)
def test_a_full_disk_is_one_line_and_leaves_nothing(place: Path, small_disk: Path, words: list[str]) -> None:
    before = contents(place)
    code, out, err, left = on_small_disk(small_disk, [word.replace("DISK", str(small_disk)) for word in words])
    # What was read from all images is printed, though the file with the answers cannot be written.
    assert (code, "accuracy" in out, left) == (3, words[0] == "evaluate", ["taken"]), err
    assert "No space left on device" in one_line(err)
    assert re.search("free (some|[0-9.]+ [KM]B|space)", err)
    assert contents(place) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["export", "digits.pt", "-o", "o.tflite"],
        ["quantize", "float.onnx", "--scheme", "dynamic-int8", "-o", "o.onnx"],
        ["export", "float.onnx", "-o", "o.ort"],
        ["press", "digits.pt", *DATA, "--format", "onnx", "--recipe", "static-int8", "--out", "o"],
    ],
    ids=lambda words: f"row59-{words[0]} {Path(words[-1]).suffix}",
)
def test_a_full_disk_of_temporary_files_is_named(place: Path, small_disk: Path, words: list[str]) -> None:
    before = contents(place)
    code, out, err, left = on_small_disk(small_disk, words, TMPDIR=str(small_disk))
    assert (code, out, left) == (3, "", ["taken"]), err
    assert re.search(f" {small_disk} .*free some space, or set TMPDIR", one_line(err))
    assert contents(place) == before


def interrupted(words: list[str], at: str, number: int) -> tuple[int, str]:
    """Send a signal when a line on stderr begins with `at`; return the exit code and the rest of stderr."""
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, *words]
    with subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert any(line.startswith(at) for line in run.stderr or ())
            run.send_signal(number)
            _, err = run.communicate(timeout=120)
        finally:
            run.kill()
    return run.returncode, "".join(line for line in err.splitlines(keepends=True) if line.startswith("glyphpress"))


@pytest.mark.slow
def test_ctrl_c_in_training_keeps_the_last_good_checkpoint(place: Path) -> None:
    before = contents(place)
    words = ["train", *DATA, "--epochs", "500", "--threads", "1", "-o", "o.pt"]
    code, err = interrupted(words, "epoch 2/", signal.SIGINT)
    assert code == 130
    assert re.search("interrupted; o.pt holds epoch [0-9]+ of 500", one_line(err))
    after = contents(place)
    assert "the same command with --resume continues" in err
    for name in ("o.pt", "o.pt.resume"):
        after.pop(str(place / name))
    assert after == before
    assert settle("o.pt", CheckpointRequest(), None).model.classes == tuple("0123456789")


@pytest.mark.slow
def test_an_interrupted_press_leaves_nothing(place: Path) -> None:
    # While the TFLite converter runs, whose C++ would abort the process on an exception in between.
    before = contents(place)
    words = ["press", "digits.pt", *DATA, "--format", "tflite", "--recipe", "float", "--out", "new/o"]
    code, err = interrupted(words, "export tflite", signal.SIGTERM)
    assert code == 130, err
    assert one_line(err) == "glyphpress: terminated\n"
    assert contents(place) == before
