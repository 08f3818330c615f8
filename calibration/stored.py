"""What a data file stores, before anything is known about how its images stand and what its labels mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calibration.dataset import Images, Labels


@dataclass(frozen=True)
class Stored:
    """Images and labels as a file stores them.

    images: uint8 [N, H, W], H equal to W. labels: int64 [N], in the file's own numbering. classes: the name of each
    label where the file says them, else empty. place: says where in the file an image stands, such as `line 12`.
    """

    images: Images
    labels: Labels
    place: Callable[[int], str]
    classes: tuple[str, ...] = ()
