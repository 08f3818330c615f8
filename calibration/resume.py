"""A download that goes on where an earlier one was cut off (HTTP range requests, RFC 9110 section 14)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.disk import full_disk_is_said, require_space
from calibration.errors import DownloadFailed

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int], None]

_CHUNK = 1 << 18
_AGAIN = {408, 429, 500, 502, 503, 504}
"""Statuses that may pass; every other one is final."""


class ResumingDownloader:
    """Fetches a URL into `part`, which stays when it is cut off.

    size: bytes the file must have, known beforehand, or None. attempts: tries in a row that may bring no new byte.
    Raises DownloadFailed naming what came and what was expected.
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
        """Take where the unfinished file is kept; `pause` and `patience` are seconds."""
        self._part, self._size, self._progress = part, size, progress
        self._attempts, self._pause, self._patience = attempts, pause, patience

    def fetch(self, url: str) -> None:
        """Bring `url` to the end."""
        left, problem = self._attempts, ""
        while left:
            before = self._have()
            try:
                with full_disk_is_said(self._part), _translated(url):
                    self._fetch_rest(url)
                return
            except _Interrupted as interruption:
                problem = str(interruption)
            left = self._attempts if self._have() > before else left - 1
            time.sleep(self._pause if left else 0)
        raise DownloadFailed(f"{url}: {problem} after {self._have():,} bytes; run it again, it goes on from there")

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
                # What is here is not the beginning of what is there.
                self._part.unlink()
                raise _Interrupted("the server has no more bytes than an earlier try left here")
            self._refuse(url, response)
            start, total = _extent(response, have)
            self._check_total(url, total)
            self._receive(response, start, total)

    def _refuse(self, url: str, response: requests.Response) -> None:
        status = f"the server answers {response.status_code} {response.reason}"
        if response.status_code in _AGAIN:
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
            # iter_content would throw away what came of a chunk before the cut; read1 gives every byte.
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                self._progress("downloading EMNIST, kB", file.tell() // 1000, (total or self._size or 0) // 1000)
        wanted = self._size or total
        if wanted and self._have() < wanted:
            raise _Interrupted(f"the connection ended short of {wanted:,} bytes")


class _Interrupted(Exception):
    """This try is over, another may bring the rest."""


def _extent(response: requests.Response, have: int) -> tuple[int, int]:
    """Return at which byte the answer starts and how long the whole file is (0: not said)."""
    if response.status_code == 200:
        return 0, int(response.headers.get("Content-Length", 0))
    extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not extent or int(extent[1]) != have:
        raise _Interrupted("the server sends another range than the one asked for")
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
        raise DownloadFailed(f"{url} is no address that can be fetched; it begins with https://") from error
    except requests.exceptions.ConnectionError as error:
        raise _Interrupted("the server cannot be reached or hung up") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Interrupted(f"the connection broke ({type(error).__name__})") from error
