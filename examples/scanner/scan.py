"""Reads a folder of scanned lines into a table: python scan.py FOLDER TABLE.csv [options of `glyphpress read`].

One row for each picture: its name, the text, the character that the model is least sure of, and how sure it is of that
one. Whoever checks the table sorts it by `sure`. A picture without any writing ends the program with its name, before
the table is written.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

KINDS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def main(folder, table, *options):
    pictures = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in KINDS)
    if not pictures:
        sys.exit(f"{folder}: no pictures ({', '.join(sorted(KINDS))})")
    # One process for all of them: the model is opened once.
    command = [sys.executable, "-m", "glyphpress", "read", *map(str, pictures), *options, "--top", "1", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    with Path(table).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "text", "least sure of", "sure"))
        for path, read in zip(pictures, json.loads(done.stdout)["pictures"], strict=True):
            best = [character["answers"][0] for character in read["characters"]]
            least = min(best, key=lambda one: one["confidence"])
            rows.writerow((path.name, read["text"], least["class"], f"{least['confidence']:.3f}"))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
