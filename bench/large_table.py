"""What the largest table costs: `python -m bench.large_table DIR`, some three minutes and 1.5 GB of disk.

Writes as many rows as byclass has training images, as Kaggle has them, by repeating the test images of `DIR:byclass`,
and checks them with `glyphpress data check`. Prints rows, bytes, seconds and the most memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from calibration.load import load
from tests.fixtures.data_files import table

ROWS = 697_932
BLOCK = 10_000
PROGRAM = "from toolchain.cli.main import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    data = load(f"{parser.parse_args().folder}:byclass", "test")
    stored = data.images.transpose(0, 2, 1)
    with tempfile.TemporaryDirectory() as folder:
        train, test = (Path(folder) / f"emnist-byclass-{split}.csv" for split in ("train", "test"))
        test.write_bytes(table(stored[:BLOCK], data.labels[:BLOCK]))
        with train.open("wb") as file:
            for start in range(0, ROWS, BLOCK):
                first = start % (len(stored) - BLOCK)
                rows = slice(first, first + min(BLOCK, ROWS - start))
                file.write(table(stored[rows], data.labels[rows]))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", PROGRAM, "data", "check", f"{folder}:byclass"], check=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"{ROWS:,} rows, {train.stat().st_size / 1e9:.2f} GB: {seconds:.0f} s, {cpu:.0f} s of processor time, "
            f"at most {used.ru_maxrss * 1024 / 1e6:,.0f} MB resident"
        )


if __name__ == "__main__":
    main()
