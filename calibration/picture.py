"""Opens picture files of strangers: one still picture of bounded size, or one line that says why not."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from calibration.errors import CorruptData, DataNotFound

MOST_PIXELS = 16 << 20
"""Pixels of the largest picture that is read: a page at 300 dpi has half as many."""
_PDF = b"%PDF-"
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""Pillow hands such files to Ghostscript, another program, which would run what a stranger wrote."""


@contextmanager
def open_picture(
    path: Path, *, too_large: str, still: bool = False, content: bytes | None = None
) -> Iterator[Image.Image]:
    """Yield a picture, not decoded yet; errors of its decoder inside the block are translated too.

    too_large: what to do about a picture of more than MOST_PIXELS, the end of the message. still: refuse several
    frames or pages. content: the picture file itself, where it lies inside another one, which `path` names then.
    Raises DataNotFound, and CorruptData with the file.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file, warnings.catch_warnings():
            _refuse_documents(file)
            # Warnings about damaged metadata, which is not needed, and about sizes that are refused here.
            warnings.simplefilter("ignore")
            with Image.open(file) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise CorruptData(f"{picture.width:,} x {picture.height:,} pixels are {too_large}")
                if still and (frames := getattr(picture, "n_frames", 1)) > 1:
                    raise CorruptData(f"it holds {frames:,} frames or pages; save the one to read as a PNG")
                yield picture
    except FileNotFoundError as error:
        raise DataNotFound(f"no picture {path}; check the path") from error
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise CorruptData(f"{path} is not a readable picture; remove it or save it as PNG") from error
    except Image.DecompressionBombError as error:
        # Pillow refuses it before its size can be asked.
        most = 2 * (Image.MAX_IMAGE_PIXELS or MOST_PIXELS)
        raise CorruptData(f"{path}: more than {most:,} pixels are {too_large}") from error
    # Pillow's decoders raise these for truncated, hostile and malformed files.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise CorruptData(f"{path} is a damaged picture ({error}); remove it or save it again") from error


def _refuse_documents(file: BinaryIO) -> None:
    start = file.read(len(_PDF))
    file.seek(0)
    if start == _PDF:
        raise CorruptData("it is a PDF; make a picture of the page with `pdftoppm -r 300 -gray -png FILE.pdf page`")
    if start.startswith(_POSTSCRIPT):
        raise CorruptData("it is PostScript, which is a program; save the page as PNG")
