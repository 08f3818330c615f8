from __future__ import annotations

import errno
import hashlib
import io
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from calibration import download
from calibration.download import OFFICIAL, Archive, fetch
from calibration.errors import DownloadFailed, UnknownData
from calibration.load import load
from calibration.spec import SPLITS
from tests.fixtures.archive_server import Behaviour, serving
from tests.fixtures.official_files import strokes, write_split


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive built as NIST's is, with a few images a split."""
    folder = tmp_path_factory.mktemp("archive")
    for name in SPLITS:
        for split in ("train", "test"):
            write_split(folder, name, split, strokes(10), np.arange(10))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("gzip")
        for path in sorted(folder.iterdir()):
            archive.write(path, f"gzip/{path.name}")
    return buffer.getvalue()


def get(root: Path, url: str, content: bytes, *, size: int | None = None, **words: bool) -> Path:
    return fetch(root, Archive(url, hashlib.md5(content).hexdigest(), size), pause=0, **words)


def nothing_but_a_part(root: Path) -> bool:
    return all(path.name.endswith(".part") for path in root.iterdir())


def test_the_official_archive_is_the_one_named() -> None:
    assert OFFICIAL.url == "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
    assert (OFFICIAL.md5, OFFICIAL.size) == ("58c8d27c78d21e728a6bc7b3cc06412e", 561_753_746)


def test_fetched_files_are_found_and_nothing_else_is_left(zipped: bytes, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    with serving(Behaviour(zipped)) as url:
        archive = Archive(url, hashlib.md5(zipped).hexdigest(), len(zipped))
        folder = fetch(tmp_path, archive, progress=lambda *said: seen.append(said))
    assert folder == tmp_path / "gzip"
    assert [path.name for path in tmp_path.iterdir()] == ["gzip"]
    assert np.array_equal(load("emnist:letters", "train", tmp_path).images, strokes(10))
    assert ("downloading EMNIST, kB", len(zipped) // 1000, len(zipped) // 1000) in seen
    assert seen[-1][0] == "unpacking EMNIST"
    assert seen[-1][1] == seen[-1][2]


def test_a_second_fetch_asks_for_nothing(zipped: bytes, tmp_path: Path) -> None:
    behaviour = Behaviour(zipped)
    with serving(behaviour) as url:
        get(tmp_path, url, zipped)
        get(tmp_path, url, zipped)
        assert len(behaviour.asked) == 1
        get(tmp_path, url, zipped, force=True)
    assert len(behaviour.asked) == 2


def test_a_cut_off_download_goes_on_at_once(zipped: bytes, tmp_path: Path) -> None:
    behaviour = Behaviour(zipped, cuts=[1000, 500])
    with serving(behaviour) as url:
        get(tmp_path, url, zipped)
    assert behaviour.asked == [None, "bytes=1000-", "bytes=1500-"]


def test_a_download_given_up_goes_on_in_a_later_run(zipped: bytes, tmp_path: Path) -> None:
    behaviour = Behaviour(zipped, cuts=[2000, 0, 0, 0, 0])
    with serving(behaviour) as url:
        with pytest.raises(DownloadFailed, match=r"after 2,000 bytes; run it again to continue from there"):
            get(tmp_path, url, zipped)
        assert nothing_but_a_part(tmp_path)
        get(tmp_path, url, zipped)
    assert behaviour.asked[-1] == "bytes=2000-"
    assert load("emnist:digits", "test", tmp_path).split == "test"


def test_a_server_without_ranges_starts_over(zipped: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(zipped, ranges=False, cuts=[1000])) as url:
        get(tmp_path, url, zipped)
    assert load("emnist:digits", "test", tmp_path).split == "test"


def test_what_an_earlier_try_left_is_too_long(zipped: bytes, tmp_path: Path) -> None:
    digest = hashlib.md5(zipped).hexdigest()
    (tmp_path / f".emnist-{digest[:8]}.part").write_bytes(zipped + b"more")
    with serving(Behaviour(zipped)) as url:
        get(tmp_path, url, zipped)
    assert [path.name for path in tmp_path.iterdir()] == ["gzip"]


def test_a_length_too_long_is_a_cut_off(zipped: bytes, tmp_path: Path) -> None:
    with (
        serving(Behaviour(zipped, claim=len(zipped) + 9, ranges=False)) as url,
        pytest.raises(DownloadFailed, match=r"hung up|connection broke|ended short"),
    ):
        get(tmp_path, url, zipped)
    assert nothing_but_a_part(tmp_path)


def test_a_length_too_short_is_not_the_archive(zipped: bytes, tmp_path: Path) -> None:
    with (
        serving(Behaviour(zipped, claim=len(zipped) - 9)) as url,
        pytest.raises(DownloadFailed, match="not have the MD5"),
    ):
        get(tmp_path, url, zipped)
    assert not list(tmp_path.iterdir())


def test_another_length_than_known_is_refused_before_the_download(zipped: bytes, tmp_path: Path) -> None:
    with (
        serving(Behaviour(b"<html>moved</html>")) as url,
        pytest.raises(DownloadFailed, match="another file") as caught,
    ):
        get(tmp_path, url, zipped, size=len(zipped))
    assert f"expected {len(zipped):,} bytes, the server offers 18" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_of_the_right_length(zipped: bytes, tmp_path: Path) -> None:
    wrong = zipped[:-1] + bytes([zipped[-1] ^ 1])
    with serving(Behaviour(wrong)) as url, pytest.raises(DownloadFailed, match="does not have the MD5"):
        get(tmp_path, url, zipped, size=len(zipped))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 4), (503, 4)])
def test_errors_of_the_server(status: int, requests: int, zipped: bytes, tmp_path: Path) -> None:
    """What may pass is tried again; what will not is said at once."""
    behaviour = Behaviour(zipped, statuses=[status] * 9)
    with serving(behaviour) as url, pytest.raises(DownloadFailed, match=f"the server answers {status}"):
        get(tmp_path, url, zipped)
    assert len(behaviour.asked) == requests
    assert not list(tmp_path.iterdir())


def test_a_server_that_recovers(zipped: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(zipped, statuses=[503, 500])) as url:
        assert get(tmp_path, url, zipped).is_dir()


def test_no_server(zipped: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(zipped)) as url:
        pass
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        get(tmp_path, url, zipped)


def test_no_address(zipped: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnknownData, match="is not an address"):
        get(tmp_path, "gzip.zip", zipped)


Usage = namedtuple("Usage", "total used free")


def test_a_disk_too_small_is_said_before_the_download(
    zipped: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _folder: Usage(10, 10, 3))
    with serving(Behaviour(zipped)) as url, pytest.raises(DownloadFailed, match=r"MB free and .* MB are needed"):
        get(tmp_path, url, zipped)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up(zipped: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.ResumingDownloader, "_receive", full)
    with (
        serving(Behaviour(zipped)) as url,
        pytest.raises(DownloadFailed, match=r"the disk is full at .*part; free some"),
    ):
        get(tmp_path, url, zipped)


def test_a_disk_that_fills_up_while_unpacking(zipped: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(Behaviour(zipped)) as url:
        monkeypatch.setattr("calibration.download.shutil.copyfileobj", full)
        with pytest.raises(DownloadFailed, match="the disk is full"):
            get(tmp_path, url, zipped)
        monkeypatch.undo()
        assert [path.suffix for path in tmp_path.iterdir()] == [".zip"], "the verified archive stays"
        get(tmp_path, url, zipped)
    assert [path.name for path in tmp_path.iterdir()] == ["gzip"]


def test_members_cannot_land_elsewhere(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../emnist-evil.gz", "x")
        archive.writestr("/etc/passwd", "x")
    root = tmp_path / "a" / "b"
    with serving(Behaviour(buffer.getvalue())) as url:
        folder = get(root, url, buffer.getvalue())
    assert [path.name for path in folder.iterdir()] == ["emnist-evil.gz"]
    assert not (tmp_path / "emnist-evil.gz").exists()


@pytest.mark.parametrize("content", [b"no zip at all", b""], ids=["text", "empty"])
def test_no_zip(content: bytes, tmp_path: Path) -> None:
    with serving(Behaviour(content)) as url, pytest.raises(DownloadFailed, match="is not a complete zip"):
        get(tmp_path, url, content)
    assert not list(tmp_path.iterdir())


def test_strange_or_partial_folders_are_left_alone(zipped: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "gzip"
    folder.mkdir()
    (folder / "emnist-digits-mapping.txt").write_text("mine")
    with serving(Behaviour(zipped)) as url:
        with pytest.raises(DownloadFailed, match="holds only some of EMNIST's files; --force"):
            get(tmp_path, url, zipped)
        (folder / "thesis.tex").touch()
        with pytest.raises(DownloadFailed, match=r"holds thesis\.tex, which is not EMNIST's"):
            get(tmp_path, url, zipped, force=True)
        (folder / "thesis.tex").unlink()
        assert (get(tmp_path, url, zipped, force=True) / "emnist-digits-mapping.txt").read_text() != "mine"
