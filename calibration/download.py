"""Fetches the official EMNIST archive: resumed, verified, unpacked whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from calibration import atomic_files
from calibration.errors import DownloadFailed, UnknownData
from calibration.load import find_split, user_cache
from calibration.spec import SPLITS

if TYPE_CHECKING:
    import requests


_ADVICE = "free some space, or choose another disk with --data-root"


def require_space(folder: Path, need: int) -> None:
    """Raise DownloadFailed when `folder`'s disk has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DownloadFailed(f"{folder} has {free / 1e6:,.0f} MB free and {need / 1e6:,.0f} MB are needed; {_ADVICE}")


@contextmanager
def full_disk_reported(path: Path) -> Iterator[None]:
    """Raise DownloadFailed instead of an OSError about a full disk; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise DownloadFailed(f"the disk is full at {path}; {_ADVICE}; the part that was downloaded is kept") from error


Progress = Callable[[str, int, int], None]

_CHUNK = 1 << 18
_RETRIED = {408, 429, 500, 502, 503, 504}
"""Statuses after which another attempt may succeed; others are final."""


class ResumingDownloader:
    """Downloads a URL into `part`, which is kept and resumed when the download is interrupted (RFC 9110, section 14).

    size: expected bytes of the file, or None where that is not known. attempts: consecutive attempts without a new byte
    after which it fails. Raises DownloadFailed with what was received and what was expected.
    """

    def __init__(
        self,
        part: Path,
        size: int | None,
        progress: Progress,
        *,
        attempts: int = 4,
        pause: float = 1.0,
        patience: float = 30,
    ) -> None:
        """Take the path of the unfinished file; `pause` and `patience` are seconds."""
        self._part, self._size, self._progress = part, size, progress
        self._attempts, self._pause, self._patience = attempts, pause, patience

    def fetch(self, url: str) -> None:
        """Download `url` completely."""
        attempts_left, problem = self._attempts, ""
        while attempts_left:
            before = self._have()
            try:
                with full_disk_reported(self._part), _translated(url):
                    self._fetch_rest(url)
                return
            except _Interrupted as interruption:
                problem = str(interruption)
            attempts_left = self._attempts if self._have() > before else attempts_left - 1
            time.sleep(self._pause if attempts_left else 0)
        raise DownloadFailed(f"{url}: {problem} after {self._have():,} bytes; run it again to continue from there")

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _fetch_rest(self, url: str) -> None:
        import requests

        have = self._have()
        if have == self._size:
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=self._patience) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                # The part here is not the beginning of the file there.
                self._part.unlink()
                raise _Interrupted("the server has no more bytes than an earlier attempt downloaded")
            self._refuse(url, response)
            start, total = _extent(response, have)
            self._check_total(url, total)
            self._receive(response, start, total)

    def _refuse(self, url: str, response: requests.Response) -> None:
        status = f"the server answers {response.status_code} {response.reason}"
        if response.status_code in _RETRIED:
            raise _Interrupted(status)
        if response.status_code not in {200, 206}:
            raise DownloadFailed(f"{url}: {status}; check the address, or give another with --url")

    def _check_total(self, url: str, total: int) -> None:
        if self._size and total and total != self._size:
            self._part.unlink(missing_ok=True)
            raise DownloadFailed(
                f"{url}: expected {self._size:,} bytes, the server offers {total:,}: another file; try another --url"
            )

    def _receive(self, response: requests.Response, start: int, total: int) -> None:
        need = max(0, (total or self._size or 0) - start)
        require_space(self._part.parent, need)
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            # iter_content would drop the part of a chunk before an interruption; read1 returns every byte.
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                self._progress("downloading EMNIST, kB", file.tell() // 1000, (total or self._size or 0) // 1000)
        expected = self._size or total
        if expected and self._have() < expected:
            raise _Interrupted(f"the connection ended short of {expected:,} bytes")


class _Interrupted(Exception):
    """This attempt failed; another one may succeed."""


def _extent(response: requests.Response, have: int) -> tuple[int, int]:
    """Return the first byte of the answer and the size of the whole file (0 where it is not known)."""
    if response.status_code == 200:
        return 0, int(response.headers.get("Content-Length", 0))
    extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not extent or int(extent[1]) != have:
        raise _Interrupted("the server sends another range than the requested one")
    return have, 0 if extent[2] == "*" else int(extent[2])


@contextmanager
def _translated(url: str) -> Iterator[None]:
    import requests
    import urllib3

    try:
        yield
    except (
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
    ) as error:
        raise UnknownData(
            f"{url} is not an address that can be fetched; it must begin with https:// or http://"
        ) from error
    except requests.exceptions.ConnectionError as error:
        raise _Interrupted("the server cannot be reached or hung up") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Interrupted(f"the connection broke ({type(error).__name__})") from error


FOLDER = "gzip"
"""Folder of the files under the data root, as in the archive itself."""


@dataclass(frozen=True)
class Archive:
    """A zip archive: its address, the MD5 from its publisher, its bytes (None: not known)."""

    url: str
    md5: str
    size: int | None = None


OFFICIAL = Archive(
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", 561_753_746
)


def fetch(
    root: Path | None = None,
    archive: Archive = OFFICIAL,
    *,
    force: bool = False,
    progress: Progress = lambda _label, _done, _total: None,
    pause: float = 1.0,
) -> Path:
    """Download and unpack `archive` below `root` (None: the user cache); return the folder of the files.

    An interrupted download is resumed. Files that are complete are left alone unless `force`. Needs disk space for the
    archive twice. Raises DownloadFailed; then only the unfinished download stays. pause: seconds between attempts.
    """
    root = root or user_cache()
    if root is None:
        raise DownloadFailed("you have no home folder for EMNIST's files; choose a folder with --data-root")
    folder = root / FOLDER
    atomic_files.sweep(root)
    if not force and _complete(folder):
        # The run that unpacked it may have been killed before it removed the archive.
        _zipped(root, archive).unlink(missing_ok=True)
        return folder
    _refuse_other_files(folder, force)
    root.mkdir(parents=True, exist_ok=True)
    zipped = _retrieve(root, archive, progress, pause)
    _unpack(zipped, folder, progress)
    zipped.unlink()
    return folder


def _complete(folder: Path) -> bool:
    splits = [find_split(table, split, [folder]) for table in SPLITS.values() for split in ("train", "test")]
    return all(files is not None and files.complete for files in splits)


def _refuse_other_files(folder: Path, force: bool) -> None:
    if other := _other_files(folder):
        raise DownloadFailed(
            f"{folder} holds {other[0]}, which is not EMNIST's; move it away or choose another --data-root"
        )
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise DownloadFailed(f"{folder} holds only some of EMNIST's files; --force replaces them")


def _other_files(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if not name.startswith("emnist-")]


def _zipped(root: Path, archive: Archive) -> Path:
    # The digest in the name keeps two different archives apart.
    return root / f"emnist-{archive.md5[:8]}.zip"


def _retrieve(root: Path, archive: Archive, progress: Progress, pause: float) -> Path:
    """Return the verified archive in `root`; one that an earlier run verified but did not unpack is used again."""
    zipped, part = _zipped(root, archive), root / f".emnist-{archive.md5[:8]}.part"
    if zipped.is_file() and _md5(zipped) == archive.md5:
        return zipped
    ResumingDownloader(part, archive.size, progress, pause=pause).fetch(archive.url)
    if _md5(part) != archive.md5:
        part.unlink()
        raise DownloadFailed(
            f"{archive.url}: the download does not have the MD5 {archive.md5}, so it is another file or damaged; "
            "run it again, or try another --url"
        )
    return part.replace(zipped)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _unpack(zipped: Path, folder: Path, progress: Progress) -> None:
    try:
        with zipfile.ZipFile(zipped) as archive, full_disk_reported(folder):
            members = [item for item in archive.infolist() if _is_emnist_file(item)]
            if not members:
                raise DownloadFailed(f"{zipped} holds no EMNIST files; fetch it again from another --url")
            require_space(folder.parent, sum(item.file_size for item in members))
            with atomic_files.room(folder.parent) as room:
                fresh = room / "new" / folder.name
                _extract(archive, members, fresh, progress)
                atomic_files.place_folder(fresh, folder, replaceable=lambda old: not _other_files(old))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        zipped.unlink()
        raise DownloadFailed(f"{zipped} is not a complete zip ({error}) and was removed; fetch it again") from error
    except FileExistsError as error:
        raise DownloadFailed(
            f"{folder} was filled by another process in the meantime, and is kept; check it"
        ) from error


def _extract(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], fresh: Path, progress: Progress) -> None:
    fresh.mkdir(parents=True)
    for done, item in enumerate(members, 1):
        with archive.open(item) as source, (fresh / PurePosixPath(item.filename).name).open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        progress("unpacking EMNIST", done, len(members))


def _is_emnist_file(item: zipfile.ZipInfo) -> bool:
    """Return whether a member is one of EMNIST's files; only its base name is used, so its path is harmless."""
    return not item.is_dir() and PurePosixPath(item.filename).name.startswith("emnist-")
