"""`python -m tests.fuzz [READER...]`: damage files, let glyphpress read each, and count how it ends.

An input passes when the exit code is one of 0 to 5, what is refused is refused in one line without a traceback, and it
takes less than 2 GB and a minute. What does not pass is kept in --keep, and the exit code is 1. An input is known by
its reader, seed and number alone: `--first N --count 1` makes it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import bases
from tests.fuzz.readers import READERS
from tests.fuzz.runner import Ended, inputs, preload


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"by default all: {', '.join(READERS)}")
    parser.add_argument("--count", type=int, default=1000, help="inputs a reader (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--seed", default="0", help="another seed damages otherwise (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most seconds for each reader")
    parser.add_argument("--base", type=Path, help="the folder of whole files, made where it is not there")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="a folder for what does not pass")
    parser.add_argument("--json", action="store_true", help="print one JSON object a reader")
    words = parser.parse_args()
    if strange := set(words.readers) - set(READERS):
        parser.error(f"no reader {min(strange)}; there are {', '.join(READERS)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="glyphpress-fuzz-") as folder:
        base = words.base or Path(folder) / "base"
        preload()
        if not base.is_dir():
            # In a process of its own, since a fork of one that has threads may hang.
            apart = multiprocessing.get_context("fork").Process(target=bases.make, args=(base,))
            apart.start()
            apart.join()
            if apart.exitcode:
                return apart.exitcode
        for name in words.readers or READERS:
            start, ended = time.monotonic(), []
            numbers = range(words.first, words.first + words.count)
            for one in inputs(name, base, Path(folder), words.keep, words.seed, numbers):
                ended.append(one)
                if time.monotonic() - start > words.seconds:
                    break
            _print(name, words.seed, ended, as_json=words.json)
            failed += sum(not one.passed for one in ended)
    return 1 if failed else 0


def _print(name: str, seed: str, ended: list[Ended], *, as_json: bool) -> None:
    failures = [one for one in ended if not one.passed]
    if as_json:
        facts = {"reader": name, "seed": seed, "inputs": len(ended), "failures": [vars(one) for one in failures]}
        print(json.dumps(facts), flush=True)
        return
    codes = Counter(one.how for one in ended)
    counts = "  ".join(f"{how} {count}" for how, count in sorted(codes.items()))
    slowest, largest = max(one.seconds for one in ended), max(one.megabytes for one in ended)
    print(f"{name:16} {len(ended):5} inputs  {counts}  slowest {slowest:.1f} s  {largest} MB", flush=True)
    for one in failures:
        print(f"  FAILED {one.number}: {one.how}: {one.said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
