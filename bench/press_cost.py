"""What a press costs beside the bare library calls that do the same: `python -m bench.press_cost`, about three minutes.

A CNN of 152,000 parameters is trained for a few seconds on balanced and saved as a state_dict. Then, in turns and each
in a fresh process: `press --format onnx --recipe static-int8` on the test split, and torch's export to ONNX,
onnxruntime's quantize_static on 512 training images, both files read in batches of 64 and timed for 2 s each. Medians
of wall time, of CPU time and of peak resident memory, children included. Where others are at work a press times its
files twice; such a round counts only if there is no other. Exit 1 where a press takes more than LIMITS.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.host.machine import cpu_name, machine_state, saturates

if TYPE_CHECKING:
    from torch import nn

CALIBRATION, BATCH, SECONDS = 512, 64, 2.0
LIMITS = {"wall_s": 1.25, "cpu_s": 1.25, "peak_mb": 1.15}
LABELS = {"wall_s": "wall time, s", "cpu_s": "CPU time, s", "peak_mb": "peak memory, MB"}
PROGRAM = "from toolchain.cli.main import main; main()"
MODEL = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, classes=47):
        super().__init__(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 90), nn.ReLU(), nn.Linear(90, classes),
        )
"""


@dataclass(frozen=True)
class Cost:
    """What one process took. twice: whether it timed its files a second time."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    twice: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data", type=Path, help="folder of emnist-balanced-*.gz; by default that of the tests")
    parser.add_argument("--run", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = options.data or emnist()
    if options.run:
        STAGES[options.run](data, options.scratch)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        inner = ["-m", "bench.press_cost", "--data", str(data), "--scratch", scratch, "--run"]
        press = ["-c", PROGRAM, "press", f"{scratch}/net.pt", "--model", f"{scratch}/net.py:Net"]
        press += ["--data", f"{data}:balanced", "--format", "onnx", "--recipe", "static-int8"]
        press += ["--seconds", f"{SECONDS:g}s", "--force", "--out", f"{scratch}/out"]
        commands = {"bare": [*inner, "bare"], "press": press}
        cost([*inner, "train"])
        rounds = [{name: cost(commands[name]) for name in order(number)} for number in range(options.rounds)]
    counted = [pair for pair in rounds if not pair["press"].twice] or rounds
    medians = {
        name: {key: statistics.median(getattr(pair[name], key) for pair in counted) for key in LIMITS}
        for name in commands
    }
    ratios = {key: medians["press"][key] / medians["bare"][key] for key in LIMITS}
    found = {
        "command": f"glyphpress {shlex.join(press[2:])}",
        "processor": processor(),
        "rounds": [{name: asdict(pair[name]) for name in commands} for pair in rounds],
        **medians,
        "ratios": ratios,
        "limits": LIMITS,
    }
    print(json.dumps(found, indent=1) if options.json else table(found, len(counted)))
    return int(any(ratios[key] > limit for key, limit in LIMITS.items()))


def order(number: int) -> tuple[str, str]:
    return ("bare", "press") if number % 2 == 0 else ("press", "bare")


def cost(words: list[str]) -> Cost:
    """Run Python with these words in a fresh process; what it prints to stderr is shown where it fails.

    Linux counts the memory of the process that starts another one as its peak too, so this one imports no torch.
    """
    start = perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        process = os.posix_spawn(sys.executable, [sys.executable, *words], os.environ, file_actions=actions)
        _, status, used = os.wait4(process, 0)
        wall_s = perf_counter() - start
        errors.seek(0)
        said = errors.read()
    if status:
        raise RuntimeError(f"{shlex.join(words)} ended with {os.waitstatus_to_exitcode(status)}: {said[-2000:]}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, "timing again" in said)


def table(found: dict[str, Any], counted: int) -> str:
    lines = [found["command"], f"on {found['processor']}; medians of {counted} rounds in turns", ""]
    twice = sum(pair["press"]["twice"] for pair in found["rounds"])
    if twice:
        part = "left out" if counted < len(found["rounds"]) else f"all of them counted, {2 * SECONDS:g} s too long"
        lines.insert(2, f"others were at work: {twice} presses timed their files twice, {part}")
    lines.append(f"{'':16} {'bare':>8} {'press':>8} {'ratio':>6} {'at most':>8}")
    lines += [
        f"{LABELS[key]:16} {found['bare'][key]:8.1f} {found['press'][key]:8.1f} {ratio:6.2f} {LIMITS[key]:8.2f}"
        for key, ratio in found["ratios"].items()
    ]
    return "\n".join(lines)


def processor() -> str:
    state = machine_state()
    kind = "without" if saturates(state.get("isa", ())) else "with"
    return f"{cpu_name()} {kind} VNNI, {state['usable_cores']} cores"


def emnist() -> Path:
    """Return the folder of the resplit: of GLYPHPRESS_EMNIST, or beside the checkout."""
    stored = os.environ.get("GLYPHPRESS_EMNIST")
    return (Path(stored) if stored else Path(__file__).resolve().parents[2] / "shared" / "emnist") / "resplit"


def read_images(data: Path, split: str) -> NDArray[np.uint8]:
    """Return uint8 [N, 1, 28, 28], upright."""
    content = gzip.decompress((data / f"emnist-balanced-{split}-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28).swapaxes(2, 3)


def read_labels(data: Path, split: str) -> NDArray[np.int64]:
    content = gzip.decompress((data / f"emnist-balanced-{split}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)


def pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.astype(np.float32) / 255


def new_model(scratch: Path) -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "net"}
    exec((scratch / "net.py").read_text(), namespace)
    return namespace["Net"]()


def train(data: Path, scratch: Path) -> None:
    """Write net.py and net.pt: enough epochs to read four of five images."""
    import torch

    (scratch / "net.py").write_text(MODEL)
    torch.manual_seed(0)
    model, count = new_model(scratch), 30_000
    images, labels = (
        torch.from_numpy(array[:count].copy()) for array in (read_images(data, "train"), read_labels(data, "train"))
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(2):
        for part in torch.randperm(count).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[part].float() / 255), labels[part]).backward()
            optimizer.step()
    torch.save(model.state_dict(), scratch / "net.pt")


def bare(data: Path, scratch: Path) -> None:
    """Do what a press does, with the libraries' own calls and nothing of ours."""
    test, labels, training = read_images(data, "test"), read_labels(data, "test"), read_images(data, "train")
    chosen = np.random.default_rng(0).permutation(len(training))[:CALIBRATION]
    import torch

    model, files = new_model(scratch), (scratch / "float.onnx", scratch / "int8.onnx")
    model.load_state_dict(torch.load(scratch / "net.pt", weights_only=True))
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 1, 28, 28),),
        files[0],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
    )
    quantized(*files, pixels(training[chosen]))
    for path in files:
        read(path, test, labels)
    for path in files:
        timed(path, pixels(test[:1]))


def quantized(source: Path, path: Path, images: NDArray[np.float32]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(images, len(images) // BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )


def read(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share that is read rightly, in batches, on all cores."""
    import onnxruntime

    session, right = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), 0
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        (logits,) = session.run(None, {"image": pixels(images[part])})
        right += np.count_nonzero(logits.argmax(1) == labels[part])
    return right / len(images)


def timed(path: Path, image: NDArray[np.float32]) -> float:
    """Return the median time of one image in seconds, over SECONDS, on one thread."""
    import onnxruntime

    options, samples = onnxruntime.SessionOptions(), []
    options.intra_op_num_threads = 1
    session, end = (
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]),
        perf_counter() + SECONDS,
    )
    while (start := perf_counter()) < end:
        session.run(None, {"image": image})
        samples.append(perf_counter() - start)
    return statistics.median(samples)


STAGES: dict[str, Callable[[Path, Path], None]] = {"train": train, "bare": bare}

if __name__ == "__main__":
    sys.exit(main())
