"""Train, press and judge the reference models: `python -m bench.models NAME DIR`, a command for each row of models.md.

Trains the model with `glyphpress train` and presses what came out with static int8, in both formats, judged by the
default policy. A model that was trained before is only pressed: `--checkpoint FILE`. The result is a small JSON in
`results/models/`; `python -m bench.models --render` makes `models.md` from all of them. A row that is measured
again keeps what was tried (`--tried TEXT`) and how long an earlier training took (`--trained TEXT`), unless given anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from targets.host.machine import machine_state
from toolchain import models
from toolchain.core.json_codec import from_json, to_json
from toolchain.core.quantities import percent_text, points_text, size_text
from toolchain.evaluation.metrics import ClassMetrics
from toolchain.formats import catalog
from toolchain.report.per_class import COLUMNS, per_class_cells
from toolchain.report.report import Report
from toolchain.report.tables import DASH, markdown_table, markdown_text
from toolchain.stats.share import wilson

PAGE = Path(__file__).with_name("models.md")
REFERENCE = PAGE.parents[1] / "docs" / "reference" / "models.md"
MARKS = "<!-- table: python -m bench.models -->\n", "<!-- end of models -->\n"
RESULTS = Path(__file__).parent / "results" / "models"
PROGRAM = "from toolchain.cli.main import main; main()"


@dataclass(frozen=True)
class Reference:
    """A row of the page. data: of `--data`. purpose: what the model is for. goal: accuracy to reach.

    options: of `train`, beyond model and data; without any the model's own preset holds all settings.
    press: options of `press` where static int8 in both formats is not possible. suffix: of what `train` writes.
    hypothesis: whether the goal is a hypothesis, which only an interval beyond it accepts or rejects. letters: show the
    table of classes.
    """

    model: str
    data: str
    purpose: str
    goal: float | None = None
    options: str = ""
    press: str = "--recipe static-int8"
    suffix: str = ".pt"
    hypothesis: bool = False
    letters: bool = False


def _estimator(model: str, purpose: str, options: str = "", data: str = "builtin:digits8x8") -> Reference:
    """Return the row of a classifier of scikit-learn, which becomes a float .onnx and nothing else."""
    press = "--recipe float --format onnx"
    return Reference(model, data, purpose, 0.95, options, press, suffix=".onnx", hypothesis=True)


NEAR_DEEP = 0.895
"""Within 0.5 pp of what `cnn-deep` reaches on balanced."""
BFLOAT16 = "--precision bfloat16"
REFERENCES = {
    "mlp-100x3": Reference(
        "mlp-100x3", "DIR:byclass/test[A-Z]", "first steps, without convolutions", 0.956, letters=True
    ),
    "lenet5": Reference("lenet5", "DIR:digits", "comparison with published compression", 0.992),
    "cnn-keras": Reference("cnn-keras", "DIR:digits", "digits, as Keras tutorials build it", 0.994, BFLOAT16),
    "cnn-keras-plain": Reference(
        "cnn-keras", "DIR:digits", "the same without augmentation", options=f"{BFLOAT16} --augment 0"
    ),
    "cnn-small": Reference("cnn-small", "DIR:balanced", "devices; ships with its weights"),
    "cnn-deep-letters": Reference("cnn-deep", "DIR:letters", "letters", 0.935, f"--epochs 40 {BFLOAT16}"),
    "cnn-deep": Reference(
        "cnn-deep",
        "DIR:balanced",
        "accuracy, and as a teacher; ships with its weights",
        0.899,
        f"--epochs 40 {BFLOAT16}",
    ),
    "resnet18": Reference("resnet18", "DIR:balanced", "residual blocks", NEAR_DEEP, f"--epochs 18 {BFLOAT16}"),
    "densenet": Reference("densenet", "DIR:balanced", "densely connected blocks", NEAR_DEEP, BFLOAT16),
    "cnn-attention": Reference(
        "cnn-attention", "DIR:balanced", "channel and spatial attention", NEAR_DEEP, f"--epochs 18 {BFLOAT16}"
    ),
    "dscnn": Reference("dscnn", "DIR:balanced", "microcontrollers", 0.86),
    "svc": _estimator("svc", "support vectors, as scikit-learn's tutorial fits them", "--gamma 0.001 --C 100"),
    "decision-tree": _estimator("decision-tree", "a baseline whose reasons can be read"),
    "random-forest": _estimator("random-forest", "a baseline that needs no tuning"),
    "svc-emnist": _estimator("svc", "the same on EMNIST's digits", data="DIR:digits"),
    "decision-tree-emnist": _estimator("decision-tree", "the same on EMNIST's digits", data="DIR:digits"),
    "random-forest-emnist": _estimator("random-forest", "the same on EMNIST's digits", data="DIR:digits"),
}


@dataclass(frozen=True)
class PressedFile:
    """A file of a press: as in the report's row. ratio: of its p50 to that of the float file in the same format."""

    format: str
    recipe: str
    bytes: int
    accuracy: float
    drop: float | None
    bound: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class ModelResult:
    """What was measured. trained: how long the training took, and on what. right: of `images`, by the float .onnx."""

    SCHEMA: ClassVar = "glyphpress/bench-model/1"

    name: str
    origin: str
    train: str
    press: str
    trained: str
    machine: str
    parameters: int | None
    macs: int | None
    images: int
    right: int
    files: tuple[PressedFile, ...]
    notes: tuple[str, ...] = ()
    per_class: tuple[ClassMetrics, ...] = ()
    tried: str = ""

    @property
    def accuracy(self) -> float:
        """The float model's share of test images that it reads correctly."""
        return self.right / self.images


def measure(name: str, folder: str, work: Path, *, checkpoint: str | None, trained: str, tried: str) -> ModelResult:
    """Train unless there is a checkpoint, press and judge; `work` gets the weights and the press's files."""
    reference, path = REFERENCES[name], RESULTS / f"{name}.json"
    stored = load(path) if path.is_file() else None
    train = " ".join(f"train --model {reference.model} --data {reference.data} {reference.options}".split())
    press = f"--data {reference.data} {reference.press} --threads 1 --out out"
    weights = f"{name}{reference.suffix}"
    if checkpoint is None:
        trained = _timed(f"{train} -o {weights}", folder, work)
    elif trained:
        trained = f"{trained}, in an earlier run"
    source = checkpoint or weights
    _run(f"press {shlex.quote(source)} {press} --force", folder, work, allowed=(0, 1, 5))
    report = Report.load(work / "out")
    if reference.model in models.MODELS and report.checkpoint.model != models.MODELS[reference.model].split(":")[1]:
        sys.exit(f"{source} is a {report.checkpoint.model}, not the model of this row, {reference.model}")
    baseline = report.rows[0]
    return ModelResult(
        name=name,
        origin=report.dataset.origin,
        train=f"glyphpress {train} -o {weights}",
        press=f"glyphpress press {weights} {press}",
        trained=trained or (stored.trained if stored else "time not recorded"),
        machine=_machine(),
        parameters=report.checkpoint.parameters,
        macs=report.checkpoint.macs,
        images=baseline.images,
        right=round(baseline.accuracy * baseline.images),
        files=tuple(_files(report)),
        notes=tuple(note for note in report.notes if note.startswith("NOT QUIET")),
        per_class=_per_class(work / "out" / baseline.name, reference.data, folder, work) if reference.letters else (),
        tried=tried or (stored.tried if stored else ""),
    )


def _files(report: Report) -> Iterator[PressedFile]:
    for row in report.rows:
        if not row.added:
            verdict = "baseline" if row.baseline else str(row.outcome or "not judged")
            measured = row.bytes, row.accuracy, row.drop, row.bound, row.own_ratio, row.own_ratio_interval
            yield PressedFile(row.format, row.recipe, *measured, verdict)


def _per_class(file: Path, data: str, folder: str, work: Path) -> tuple[ClassMetrics, ...]:
    told = _run(f"evaluate {shlex.quote(str(file.relative_to(work)))} --data {data} --json", folder, work)
    return tuple(ClassMetrics(**row) for row in json.loads(told)["metrics"]["per_class"])


def _timed(command: str, folder: str, work: Path) -> str:
    """Run a training and say how long it took, by the clock and in processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    _run(command, folder, work)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{_duration(seconds)}, {_duration(spent)} of processor time"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _run(command: str, folder: str, work: Path, *, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a command of glyphpress and return its output; DIR in it stands for `folder`."""
    words = [word.replace("DIR:", f"{folder}:") for word in shlex.split(command)]
    print(f"glyphpress {command}", file=sys.stderr)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
    program = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(program, cwd=work, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode not in allowed:
        sys.exit(f"exit {done.returncode}: glyphpress {command}")
    return done.stdout


def _machine() -> str:
    state = machine_state()
    vnni = " with AVX-512 VNNI" if "avx512_vnni" in state["isa"] else ""
    return f"{state['cpu']}{vnni}, {state['usable_cores']} cores"


def load(path: Path) -> ModelResult:
    return from_json(ModelResult, path.read_bytes(), whole=False)


def page(results: Iterable[ModelResult]) -> str:
    """Return models.md: the table of models, that of their int8 files, the commands, and what was tried."""
    results = list(results)
    missing = [f"`{name}`" for name in REFERENCES if name not in {result.name for result in results}]
    parts = [
        HEAD.format(machines=" and ".join(sorted({result.machine for result in results}))),
        markdown_table(MODEL_COLUMNS, map(_model_cells, results), right=(2, 3)),
        *([f"Not measured yet: {', '.join(missing)}."] if missing else []),
        FILES,
        markdown_table(FILE_COLUMNS, [row for result in results for row in _file_rows(result)], right=(2, 3, 4)),
        *([REMARK] if any(result.notes for result in results) else []),
        "## What each command runs\n\n```\n"
        + "\n\n".join(f"{result.train}\n{result.press}" for result in results)
        + "\n```",
        *(_letters(result) for result in results if result.per_class),
        *(["## What was tried"] if any(result.tried for result in results) else []),
        *(f"**{result.name}.** {result.tried}" for result in results if result.tried),
    ]
    return "\n\n".join(parts) + "\n"


HEAD = """# Reference models

Each row is made by the command beside it; `DIR` is a folder with EMNIST's files, here the resplit that
[cnn-small's card](../toolchain/models/weights/cnn-small.md) describes. It is **not** the official partition, so do not
compare the accuracies with published ones; `byclass/test` is the official ByClass test file alone, split again by a
hash of each image. Accuracy is that of the float ONNX file on all test images, with its 95 %
Wilson interval. Trainings and latencies were measured on: {machines}. Generated by
`python -m bench.models --render`."""
MODEL_COLUMNS = ("model", "test images", "parameters", "MACs", "accuracy [95 %]", "wanted", "training", "command")
REFERENCE_COLUMNS = ("model", "for", "test images", "parameters", "accuracy [95 %]")
FILES = """## Static int8

Size against the float file in the same format; drop with its one-sided 95 % bound against the float ONNX file; p50 at
batch 1 on one thread against the float file in the same runtime, with its 95 % interval. The verdict is the default
policy's."""
FILE_COLUMNS = ("model", "file", "float", "int8", "of float", "drop [bound]", "p50 of float", "verdict")
REMARK = "\\* other processes were busy while these files were timed, so the ratio is less certain than its interval."


def _model_cells(result: ModelResult) -> tuple[str, ...]:
    low, high = map(percent_text, wilson(result.right, result.images))
    return (
        f"`{result.name}`",
        markdown_text(f"{result.images:,} of {result.origin}"),
        DASH if result.parameters is None else f"{result.parameters:,}",
        DASH if result.macs is None else f"{result.macs / 1e6:.1f} M",
        f"{percent_text(result.accuracy)} [{low}, {high}]",
        _goal(result, REFERENCES[result.name]),
        markdown_text(result.trained),
        f"`python -m bench.models {result.name} DIR`",
    )


def _goal(result: ModelResult, reference: Reference) -> str:
    """Return the wanted accuracy, and whether it was reached."""
    if reference.goal is None:
        return DASH
    reached = "reached" if result.accuracy >= reference.goal else "**not reached**"
    if reference.hypothesis:
        low, high = wilson(result.right, result.images)
        decided = "accepted" if low >= reference.goal else "rejected" if high < reference.goal else "not decided"
        reached = f"{decided} with 95 % confidence"
    return f"{percent_text(reference.goal, 1)}: {reached}"


def _file_rows(result: ModelResult) -> Iterator[tuple[str, ...]]:
    floats = {file.format: file.bytes for file in result.files if file.recipe == "float"}
    quantized = [file for file in result.files if file.recipe != "float"]
    for file in quantized:
        size, mark = floats[file.format], "\\*" if result.notes else ""
        interval = " [{:.2f}, {:.2f}]".format(*file.interval) if file.interval else ""
        yield (
            f"`{result.name}`",
            catalog.get(file.format).title,
            size_text(size),
            size_text(file.bytes),
            f"{size / file.bytes:.2f}x",
            DASH if file.drop is None or file.bound is None else _drop(file.drop, file.bound),
            DASH if file.ratio is None else f"{file.ratio:.2f}{interval}{mark}",
            file.verdict,
        )
    if not quantized:
        for format_, size in floats.items():
            yield f"`{result.name}`", catalog.get(format_).title, size_text(size), *[DASH] * 4, "only float"


def _drop(drop: float, bound: float) -> str:
    return f"{points_text(drop)} [{points_text(bound)}] pp"


def _letters(result: ModelResult) -> str:
    cells = ([markdown_text(cell) for cell in per_class_cells(row)] for row in result.per_class)
    table = markdown_table(COLUMNS, cells, right=range(1, 6))
    return f"## {result.name}, class by class\n\nThe float ONNX file, by `glyphpress evaluate`:\n\n{table}"


def with_table(text: str, results: Iterable[ModelResult]) -> str:
    """Return the reference page's text with the short table of the models that were measured."""
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    rows = []
    for result in results:
        name, images, parameters, _, accuracy, *_ = _model_cells(result)
        rows.append((name, REFERENCES[result.name].purpose, images, parameters, accuracy))
    return f"{before}{MARKS[0]}{markdown_table(REFERENCE_COLUMNS, rows, right=(3,))}\n{MARKS[1]}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=list(REFERENCES))
    parser.add_argument("folder", nargs="?", default="emnist", help="folder with EMNIST's files; default: as emnist:")
    parser.add_argument("--checkpoint", help="a model that this command trained before, or the name of one that ships")
    parser.add_argument("--trained", default="", help="with --checkpoint: how long its training took, and on what")
    parser.add_argument("--tried", default="", help="what was tried, for a model that does not reach its goal")
    parser.add_argument("--keep", type=Path, help="folder that keeps the weights and the press's files")
    parser.add_argument("--render", action="store_true", help="only make models.md from the stored results")
    arguments = parser.parse_args()
    if not (arguments.name or arguments.render):
        parser.error("name a model, or give --render")
    if arguments.name:
        # The commands run in a folder of their own.
        checkpoint, folder = (
            str(Path(path).resolve()) if path and Path(path).exists() else path
            for path in (arguments.checkpoint, arguments.folder)
        )
        given = {"checkpoint": checkpoint, "trained": arguments.trained, "tried": arguments.tried}
        with nullcontext(arguments.keep) if arguments.keep else tempfile.TemporaryDirectory() as work:
            Path(work).mkdir(parents=True, exist_ok=True)
            result = measure(arguments.name, folder, Path(work), **given)
        RESULTS.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_json(result), indent=1, ensure_ascii=False)
        (RESULTS / f"{arguments.name}.json").write_text(text + "\n", encoding="utf-8")
    stored = [path for name in REFERENCES if (path := RESULTS / f"{name}.json").is_file()]
    results = [*map(load, stored)]
    PAGE.write_text(page(results), encoding="utf-8")
    REFERENCE.write_text(with_table(REFERENCE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
