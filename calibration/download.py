"""Fetch the official EMNIST archive: resumed, verified, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from calibration import whole
from calibration.disk import full_disk_is_said, require_space
from calibration.emnist import find, user_cache
from calibration.errors import DownloadFailed
from calibration.resume import Progress, ResumingDownloader
from calibration.splits import SPLITS

FOLDER = "gzip"
"""Where the files end up under the data root, as in the archive itself."""


@dataclass(frozen=True)
class Archive:
    """A zip to fetch: where it is, the MD5 its publisher gives, its bytes (None: not known)."""

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

    A download that was cut off is resumed. Files fetched earlier are left alone unless `force`. Needs room for the
    archive twice. Raises DownloadFailed; then nothing but the unfinished download is left behind.
    pause: seconds between tries.
    """
    root = root or user_cache()
    if root is None:
        raise DownloadFailed("you have no home to keep EMNIST's files in; name a folder with --data-root")
    folder = root / FOLDER
    whole.sweep(root)
    if not force and _complete(folder):
        # Where the run that unpacked it was killed before it came to that.
        _zipped(root, archive).unlink(missing_ok=True)
        return folder
    _refuse_strangers(folder, force)
    root.mkdir(parents=True, exist_ok=True)
    zipped = _retrieve(root, archive, progress, pause)
    _unpack(zipped, folder, progress)
    zipped.unlink()
    return folder


def _complete(folder: Path) -> bool:
    found = [find(table, split, [folder]) for table in SPLITS.values() for split in ("train", "test")]
    return all(files is not None and files.complete for files in found)


def _refuse_strangers(folder: Path, force: bool) -> None:
    if other := _strangers(folder):
        raise DownloadFailed(
            f"{folder} holds {other[0]}, which is not EMNIST's; move it away or name another --data-root"
        )
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise DownloadFailed(f"{folder} holds only some of EMNIST's files; --force replaces them")


def _strangers(folder: Path) -> list[str]:
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in there if not name.startswith("emnist-")]


def _zipped(root: Path, archive: Archive) -> Path:
    # The digest in the name keeps two different archives apart.
    return root / f"emnist-{archive.md5[:8]}.zip"


def _retrieve(root: Path, archive: Archive, progress: Progress, pause: float) -> Path:
    """Return the verified archive in `root`; one that an earlier run could not unpack is not fetched again."""
    zipped, part = _zipped(root, archive), root / f".emnist-{archive.md5[:8]}.part"
    if zipped.is_file() and _md5(zipped) == archive.md5:
        return zipped
    ResumingDownloader(part, archive.size, progress, pause=pause).fetch(archive.url)
    if _md5(part) != archive.md5:
        part.unlink()
        raise DownloadFailed(
            f"{archive.url}: the download does not have the MD5 {archive.md5}, so it is another or a damaged file; "
            "run it again, or try another --url"
        )
    return part.replace(zipped)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _unpack(zipped: Path, folder: Path, progress: Progress) -> None:
    try:
        with zipfile.ZipFile(zipped) as archive, full_disk_is_said(folder):
            members = [item for item in archive.infolist() if _wanted(item)]
            if not members:
                raise DownloadFailed(f"{zipped} holds no EMNIST files; fetch it again from another --url")
            require_space(folder.parent, sum(item.file_size for item in members))
            with whole.room(folder.parent) as room:
                fresh = room / "new" / folder.name
                _extract(archive, members, fresh, progress)
                whole.place_folder(fresh, folder, replaceable=lambda old: not _strangers(old))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        zipped.unlink()
        raise DownloadFailed(f"{zipped} is not a complete zip ({error}) and was removed; fetch it again") from error
    except FileExistsError as error:
        raise DownloadFailed(f"{folder} was filled by another process meanwhile, and stays; look at it") from error


def _extract(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], fresh: Path, progress: Progress) -> None:
    fresh.mkdir(parents=True)
    for done, item in enumerate(members, 1):
        with archive.open(item) as source, (fresh / PurePosixPath(item.filename).name).open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        progress("unpacking EMNIST", done, len(members))


def _wanted(item: zipfile.ZipInfo) -> bool:
    """Whether a member is one of EMNIST's own files; only its last name is used, so none can land elsewhere."""
    return not item.is_dir() and PurePosixPath(item.filename).name.startswith("emnist-")
