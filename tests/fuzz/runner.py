"""Runs inputs in child processes, many in one, so that a library that crashes or hangs ends only its own input."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from tests.fixtures.torch_operators import list_operators_once
from tests.fuzz.readers import READERS

IN_ONE_PROCESS = 40
HANGS_S = 60
MOST_MB = 2000
SPACE = 14 << 30
"""Addresses that an input may take: what asks for more must not take the machine with it."""

SHARED = (
    *("onnx", "onnx_ir", "onnxruntime.quantization", "onnxscript", "torch", "torch.export", "torch.onnx"),
    *("torch.onnx._internal.exporter._core", "torch._dynamo", "torch._export", "sympy", "networkx"),
    *("ai_edge_litert.interpreter", "litert_quantizer", "safetensors", "PIL.Image", "pydantic", "scipy.stats"),
    *("toolchain.checkpoint", "toolchain.export", "toolchain.quantize"),
)
"""What takes readers seconds to import: a process that is forked for each of them would import it again."""


@dataclass(frozen=True)
class Ended:
    """How an input ended. how: `exit N`, `signal N`, `hang`, or what is wrong although the exit code is right."""

    number: int
    how: str
    said: str = ""
    seconds: float = 0.0
    megabytes: int = 0

    @property
    def passed(self) -> bool:
        return self.how in {f"exit {code}" for code in range(6)}


def preload() -> None:
    """Import here, once, what every process of inputs would import, and parse torch's operators for ONNX.

    The garbage collector leaves all of it out: a look through it takes a quarter of a second, which timing asks for.
    """
    for name in SHARED:
        import_module(name)
    list_operators_once()
    sys.modules["torch.onnx._internal.exporter._registration"].onnxscript_apis.get_torchlib_ops()
    gc.freeze()


def inputs(name: str, base: Path, work: Path, keep: Path, seed: str, numbers: range) -> Iterator[Ended]:
    """Yield how each input of a reader ended; the files of those that did not pass are left in `keep`."""
    while numbers:
        for ended in _batch(name, base, work / "input", seed, numbers[:IN_ONE_PROCESS]):
            numbers = range(ended.number + 1, numbers.stop)
            if not ended.passed:
                kept = keep / f"{name}-{seed}-{ended.number}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(work / "input", kept)
            yield ended


def _batch(name: str, base: Path, folder: Path, seed: str, numbers: range) -> Iterator[Ended]:
    source, sink = os.pipe()
    waits, goes_on = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(source)
        os.close(goes_on)
        try:
            _child(name, base, folder, seed, numbers, sink, waits)
        except BaseException:  # noqa: BLE001 (a fault of the fuzzer: it must end here, and say what it was)
            traceback.print_exc()
        finally:
            os._exit(99)
    os.close(sink)
    os.close(waits)
    told, following, started = b"", iter(numbers), time.monotonic()
    with os.fdopen(source, "rb", buffering=0) as answers, os.fdopen(goes_on, "wb", buffering=0) as seen:
        while True:
            readable, _, _ = select.select([answers], [], [], max(0.0, started + HANGS_S - time.monotonic()))
            if not readable:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                yield Ended(next(following), "hang", f"no answer for {HANGS_S} s")
                return
            chunk = answers.read(65536)
            if not chunk:
                break
            *lines, told = (told + chunk).split(b"\n")
            for line in lines:
                next(following)
                started = time.monotonic()
                # The child waits, so that what it left can be looked at.
                yield Ended(**json.loads(line))
                seen.write(b".")
    _, status = os.waitpid(process, 0)
    crashed = next(following, None)
    if crashed is not None:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"
        yield Ended(crashed, how, "the process ended: see ERR.txt")


def _child(name: str, base: Path, folder: Path, seed: str, numbers: range, sink: int, waits: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    for number in numbers:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        ended = _one(name, base, folder, Random(f"{seed} {name} {number}"), number)
        os.write(sink, json.dumps(vars(ended)).encode() + b"\n")
        os.read(waits, 1)
    os._exit(0)


def _one(name: str, base: Path, folder: Path, random: Random, number: int) -> Ended:
    out, err = folder / "OUT.txt", folder / "ERR.txt"
    with out.open("wb") as one, err.open("wb") as other:
        os.dup2(one.fileno(), 1)
        os.dup2(other.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", errors="backslashreplace", closefd=False) for number in (1, 2))  # noqa: SIM115
    before, start = _peak_mb(reset=True), time.monotonic()
    code = READERS[name](random, base, folder)
    seconds, megabytes = time.monotonic() - start, _peak_mb() - before
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    said = err.read_text(errors="replace")
    facts: dict[str, Any] = {"seconds": round(seconds, 2), "megabytes": megabytes}
    return Ended(number, _judged(code, said, megabytes), " ".join(said.split())[-300:], **facts)


def _judged(code: int, said: str, megabytes: int) -> str:
    if code not in range(6):
        return f"exit {code}"
    lines = [line for line in said.splitlines() if line.strip()]
    if "Traceback" in said:
        return f"traceback, exit {code}"
    if code in (2, 3, 4) and not (len(lines) == 1 and lines[0].startswith("glyphpress: ")):
        return f"{len(lines)} lines, exit {code}"
    if megabytes > MOST_MB:
        return f"{megabytes} MB, exit {code}"
    return f"exit {code}"


def _peak_mb(*, reset: bool = False) -> int:
    """Return the most memory that this process has held, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
