from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from calibration import load as builtin
from calibration.errors import DataNotFound
from calibration.load import load
from calibration.sample import image_hashes


def test_splits_are_stratified_and_share_no_image() -> None:
    train, test = load("builtin:digits", "train"), load("builtin:digits", "test")
    assert len(train) + len(test) == 1797
    assert 550 <= len(test) <= 650
    assert np.bincount(test.labels).min() >= 55
    assert not np.isin(image_hashes(test.images), image_hashes(train.images)).any()
    assert test.classes == tuple("0123456789")
    assert (test.origin, test.split) == ("builtin:digits/test", "test")


LOAD = """
import sys, time
start = time.process_time()
from calibration.load import load
print(load("builtin:digits").sha256, time.process_time() - start, "torch" in sys.modules or "sklearn" in sys.modules)
"""


def test_another_process_gets_the_same_images_soon() -> None:
    """CPU time, since other tests may be running beside this one; the better of two, since a first one compiles."""
    seconds = []
    for _ in range(2):
        ran = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        digest, spent, heavy = ran.stdout.split()
        assert digest == load("builtin:digits").sha256
        assert heavy == "False"
        seconds.append(float(spent))
    assert min(seconds) < 4


def test_scikit_learn_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "find_spec", lambda _name: None)
    with pytest.raises(DataNotFound, match="pip install"):
        builtin._digits_file()
