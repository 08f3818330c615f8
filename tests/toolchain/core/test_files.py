"""Results under kills, beside other processes, and what is left of both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from calibration import atomic_files
from targets.metadata import load_artifact
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from tests.kills.hook import end_at
from toolchain.core.errors import StageError, UsageProblem
from toolchain.core.files import MARK, refuse_existing, refuse_folder, whole_file, whole_folder, write_whole

Make = Callable[[Path, bool], None]


def make_file(path: Path, force: bool) -> None:
    with whole_file(path, force=force) as part:
        part.write_text("new")


def make_pair(path: Path, force: bool) -> None:
    from toolchain.core.files import whole_files

    with whole_files(path, path.with_name("q.onnx.json"), force=force) as (part, side):
        part.write_text("new")
        side.write_text("of new")


def make_folder(path: Path, force: bool) -> None:
    with whole_folder(path, force=force) as part:
        (part / MARK).write_text("new")
        (part / "model.onnx").write_text("new model")


def seen(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_text("utf-8", "replace")
        for path in folder.rglob("*")
        if path.is_file()
    }


def killed(make: Make, path: Path, force: bool, operation: int) -> bool:
    """Make a result in a process of its own, which is killed before an operation; whether it came so far."""
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            end_at(path.parent, operation, signal.SIGKILL)
            make(path, force)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


FILES = [
    pytest.param(make_file, "o.npz", {"o.npz": "old"}, {"o.npz": "new"}, id="row32-file"),
    pytest.param(
        make_pair,
        "q.onnx",
        {"q.onnx": "old", "q.onnx.json": "of old"},
        {"q.onnx": "new", "q.onnx.json": "of new"},
        id="row32-model and sidecar",
    ),
    pytest.param(
        make_folder,
        "out",
        {f"out/{MARK}": "old", "out/old.onnx": "old model"},
        {f"out/{MARK}": "new", "out/model.onnx": "new model"},
        id="row31-folder",
    ),
]


@pytest.fixture(params=["exchanged", "two renames"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A disk that can exchange two folders in one step, and one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic_files, "_renameat2", lambda *_words: False)
    return str(request.param)


@pytest.mark.parametrize("force", [False, True], ids=["fresh", "force"])
@pytest.mark.parametrize(("make", "name", "old", "new"), FILES)
def test_kill_between_any_two_operations(
    *, disk: str, tmp_path: Path, make: Make, name: str, old: dict[str, str], new: dict[str, str], force: bool
) -> None:
    before = old if force else {}
    for operation in count(1):
        place = tmp_path / str(operation)
        for file, content in before.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(content)
        place.mkdir(exist_ok=True)
        came_so_far = killed(make, place / name, force, operation)
        if disk == "exchanged" and name in {"out", "o.npz"}:
            # Nobody ever sees less than one whole result, not even before the next run.
            assert {file: text for file, text in seen(place).items() if file[0] != "."} in (before, new)
        atomic_files.sweep(place)
        assert seen(place) in (before, new)
        assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []
        if not came_so_far:
            break
        # Once more, as a user would; force only where a whole result stands.
        make(place / name, seen(place) != {})
        assert seen(place) == new
    assert operation > 6


@pytest.mark.parametrize(
    ("there", "kind", "command"), [("report", "profile", "press"), ("profile", "report", "profile")]
)
def test_force_replaces_no_folder_of_another_command(there: str, kind: str, command: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / MARK).write_text(f'{{"schema": "glyphpress/{there}/1"}}')
    (out / "int8.onnx").write_text("the model that ships")
    before = seen(out)
    with (
        pytest.raises(
            UsageProblem, match=f"results of another command, `glyphpress {command}`, so that not even --force"
        ),
        whole_folder(out, force=True, kind=kind),
    ):
        raise AssertionError
    assert seen(out) == before
    with whole_folder(out, force=True, kind=there) as part:
        (part / MARK).write_text("new")
    assert seen(out) == {MARK: "new"}


def slow(path: Path, meanwhile: Callable[[], None], *, force: bool = False) -> None:
    """Make a folder while something else happens."""
    with whole_folder(path, force=force) as part:
        (part / MARK).write_text("mine")
        meanwhile()


def test_row51_a_folder_that_fills_up_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill() -> None:
        out.mkdir()
        (out / "thesis.tex").write_text("theirs")

    with pytest.raises(StageError, match=r"made by another process meanwhile, and stays; .* are in .*out\.1"):
        slow(out, fill)
    assert seen(tmp_path) == {"out/thesis.tex": "theirs", f"out.1/{MARK}": "mine"}


def test_row51_two_presses_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.1").touch()
    with pytest.raises(StageError, match=r"are in .*out\.2"):
        slow(out, lambda: make_folder(out, False))
    assert seen(tmp_path) == {
        f"out/{MARK}": "new",
        "out/model.onnx": "new model",
        "out.1": "",
        f"out.2/{MARK}": "mine",
    }


def test_row51_an_empty_folder_that_appears_meanwhile_makes_way(tmp_path: Path) -> None:
    slow(tmp_path / "out", (tmp_path / "out").mkdir)
    assert seen(tmp_path) == {f"out/{MARK}": "mine"}


def test_row51_force_replaces_no_folder_that_a_stranger_put_there_meanwhile(tmp_path: Path, disk: str) -> None:
    out = tmp_path / "out"
    make_folder(out, False)

    def fill() -> None:
        (out / MARK).unlink()
        (out / "thesis.tex").write_text("theirs")

    with pytest.raises(StageError, match=r"are in .*out\.1"):
        slow(out, fill, force=True)
    assert seen(tmp_path) == {
        "out/thesis.tex": "theirs",
        "out/model.onnx": "new model",
        f"out.1/{MARK}": "mine",
    }


def test_row51_a_file_that_appears_meanwhile_stays(tmp_path: Path, disk: str) -> None:
    path = tmp_path / "o.npz"

    def slow_file() -> None:
        with whole_file(path) as part:
            part.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(StageError, match=r"meanwhile, and stays; .* are in .*o\.npz\.1"):
        slow_file()
    assert seen(tmp_path) == {"o.npz": "theirs", "o.npz.1/o.npz": "mine"}


@pytest.mark.parametrize("force", [False, True])
def test_row51_a_name_that_no_file_can_take_is_refused_before_the_work(tmp_path: Path, force: bool) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("folder", "pipe", *(() if force else ("broken",))):
        with pytest.raises(UsageProblem), whole_file(tmp_path / name, force=force):
            pytest.fail("the work began")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "folder", "pipe"]


def test_row51_a_link_to_an_empty_folder_is_filled_and_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    make_folder(tmp_path / "out", False)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / MARK).read_text() == "new"


def test_row32_a_sidecar_whose_file_is_gone_blocks_nothing(glyphpress: Callable[..., Finished], tmp_path: Path) -> None:
    source, made = linear_reader(tmp_path / "float.onnx"), tmp_path / "made.onnx"
    words = ("quantize", source, "--scheme", "dynamic-int8", "-o", made)
    (tmp_path / "made.onnx.json").write_bytes((tmp_path / "float.onnx.json").read_bytes())
    assert glyphpress(*words).code == 0
    assert load_artifact(made).recipe == "dynamic-int8"
    made.unlink()
    (tmp_path / "made.onnx.json").write_text('{"thesis": 1}')
    done = glyphpress(*words)
    assert done.code == 2
    assert "made.onnx.json is already there" in done.err
    assert seen(tmp_path)["made.onnx.json"] == '{"thesis": 1}'


WAITS = (
    "import sys, time\nfrom pathlib import Path\nfrom toolchain.core.files import whole_file\n"
    "with whole_file(Path(sys.argv[1])) as part:\n    print(part, flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process in the middle of making a file, and the hidden folder that it works in."""
    command = [sys.executable, "-c", WAITS, str(tmp_path / "slow.npz")]
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout
            yield other, Path(other.stdout.readline().strip()).parents[1]
        finally:
            other.kill()


def test_row34_what_a_killed_process_left_is_swept_by_the_next_and_a_living_one_keeps_it(
    tmp_path: Path, working: tuple[subprocess.Popen[str], Path]
) -> None:
    other, room = working
    make_file(tmp_path / "a.npz", False)
    assert room.is_dir(), "its owner lives"
    other.kill()
    # Not waited for yet: a shell or a CI runner may be slow to do that.
    while b") Z " not in Path(f"/proc/{other.pid}/stat").read_bytes():
        time.sleep(0.01)
    make_file(tmp_path / "b.npz", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def aged(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (0, 0))


def test_row34_a_folder_of_another_machine_stays_while_it_is_locked_or_fresh(
    tmp_path: Path, working: tuple[subprocess.Popen[str], Path]
) -> None:
    other, room = working
    # As a container or a second host on the same disk sees it: the number of the process says nothing there.
    foreign = room.rename(tmp_path / ".glyphpress-0123abcd-1-1-abcdefgh")
    make_file(tmp_path / "a.npz", False)
    assert foreign.is_dir(), "fresh"
    aged(foreign)
    make_file(tmp_path / "b.npz", False)
    assert foreign.is_dir(), "locked"
    other.kill()
    other.wait()
    make_file(tmp_path / "c.npz", False)
    assert not foreign.exists()


def test_row34_a_folder_of_an_early_version_goes_after_a_week_but_never_with_a_result_in_it(tmp_path: Path) -> None:
    for name in (".glyphpress-abcdefgh", ".glyphpress-bcdefghi/old"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".glyphpress-notes.txt").touch()
    make_file(tmp_path / "a.npz", False)
    assert (tmp_path / ".glyphpress-abcdefgh").is_dir()
    for path in tmp_path.iterdir():
        aged(path)
    make_file(tmp_path / "b.npz", False)
    assert not (tmp_path / ".glyphpress-abcdefgh").exists()
    assert (tmp_path / ".glyphpress-bcdefghi" / "old").is_dir()
    assert (tmp_path / ".glyphpress-notes.txt").is_file()


@pytest.mark.parametrize(
    "name", ["/proc/o", "/proc/a/o", "x" * 300, "x/" * 2500 + "o", "/dev/null/o"], ids=lambda name: name[:9]
)
@pytest.mark.parametrize("refuse", [refuse_existing, refuse_folder])
def test_a_place_is_tried_before_the_work(
    name: str, refuse: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageProblem, match=r"o cannot be written|its name is too long; give a shorter one"):
        refuse(Path(name), force=True)


def test_trying_a_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").touch(0o600)
    os.utime(tmp_path / "o", (0, 0))
    for path in ("a/b/o", "a/../o", "a/../../o", "o"):
        refuse_existing(Path(path), force=True)
        refuse_folder(Path(path).with_name("out"), force=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "o"]
    assert not (tmp_path.parent / "o").exists()
    assert (tmp_path / "o").stat().st_mtime == 0


def test_a_place_that_takes_no_files_is_named_by_what_was_asked_for() -> None:
    with pytest.raises((OSError, UsageProblem), match=r"/proc/x\.json") as caught:
        write_whole(Path("/proc/x.json"), "words")
    assert ".glyphpress" not in str(caught.value)


@pytest.mark.parametrize("force", [False, True], ids=["empty", "of an earlier press"])
def test_a_folder_that_was_made_for_its_owner_alone_stays_so(force: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    if force:
        (out / MARK).write_text("old")
    make_folder(out, force)
    assert (out / MARK).read_text() == "new"
    assert out.stat().st_mode & 0o777 == 0o700


def test_a_folder_on_which_a_disk_is_mounted_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(UsageProblem, match=f"a disk is mounted.*name a folder in it, such as {out / 'out'}"):
        refuse_folder(out, force=False)
    refuse_folder(out / "out", force=False)


def test_a_folder_that_nobody_may_write_is_refused_and_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    # Root may write everywhere, so the answer is made.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != out)
    with pytest.raises(UsageProblem, match="its permissions forbid it"), whole_folder(out):
        raise AssertionError
    assert list(tmp_path.iterdir()) == [out]


MOUNTED = (
    "import sys; from pathlib import Path; from toolchain.core.files import whole_file, whole_folder\n"
    "path = Path(sys.argv[1])\n"
    "with (whole_folder(path) if path.is_dir() else whole_file(path, force=True)): raise SystemExit('began')\n"
)


@pytest.mark.parametrize("kind", ["row51-tmpfs", "row51-folder", "row51-file"])
def test_a_mount_point_is_refused_before_the_work(kind: str, tmp_path: Path) -> None:
    """In a container such is `-v results:/out`; no rename replaces it."""
    source, place = tmp_path / "source", tmp_path / "a place"
    for one in (source, place):
        one.touch() if kind == "row51-file" else one.mkdir()
    mount = f"mount -t tmpfs none '{place}'" if kind == "row51-tmpfs" else f"mount --bind '{source}' '{place}'"
    script = f'{mount} || exit 99; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", MOUNTED, str(place)]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: mount points NOT checked")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip("no mount namespace may be made here (that takes root): mount points NOT checked")
    assert f"UsageProblem: {place} is where a disk is mounted" in done.stderr
