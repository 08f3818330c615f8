"""Reads a folder of scanned lines into a table: python scan.py FOLDER TABLE.csv [options of `glyphpress read`].

One row for each picture: its name, the text, the character that the model is least sure of, and how sure it is of that
one. Whoever checks the table sorts it by `sure`. A picture that cannot be read, a blank one for example, has an empty
text and a `sure` of 0; the program names it, and ends with exit code 3.
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
    if not done.stdout:
        sys.exit(done.returncode)
    said = json.loads(done.stdout)
    found = {read["file"]: read for read in said["pictures"]}
    with Path(table).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "text", "least sure of", "sure"))
        for path in pictures:
            if str(path) not in found:
                rows.writerow((path.name, "", "", "0.000"))
                continue
            read = found[str(path)]
            best = [character["answers"][0] for character in read["characters"]]
            least = min(best, key=lambda one: one["confidence"])
            rows.writerow((path.name, read["text"], least["class"], f"{least['confidence']:.3f}"))
    sys.exit(done.returncode)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
