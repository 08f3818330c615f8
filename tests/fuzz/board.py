"""A board whose answers were damaged on the way: the host's side of the wire must not trust them."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np

from calibration.load import load
from targets import catalog
from targets.agent import GREETING, Channel, RemoteSession
from targets.metadata import load_artifact
from targets.session import TimingPlan
from tests.fuzz import mutate
from tests.fuzz.program import guarded

PLAN = TimingPlan(warmup=0, min_runs=20, min_seconds=0.0)


def talked(random: Random, path: Path, folder: Path) -> int:
    """Open, run and time a file on a board that sends damaged answers; return the exit code."""
    answers = folder / "answers"
    answers.write_bytes(_answers(random, path))
    # It says everything at once, and then takes what it is asked.
    command = ["sh", "-c", f"cat '{answers}'; exec cat > /dev/null"]

    def talk() -> None:
        channel = Channel(command, "ssh://board")
        try:
            with RemoteSession(channel, load_artifact(path), path="there.onnx", runtime="ort-cpu") as session:
                session.run(_images())
                session.time(PLAN)
        finally:
            if not channel.lost:
                channel.close()

    return guarded(talk)


def _images() -> np.ndarray:
    return load("builtin:digits", "test").images[:20]


def _answers(random: Random, path: Path) -> bytes:
    with catalog.get("ort-cpu").open(load_artifact(path)) as session:
        logits = session.run(_images()).astype("<f4").tobytes()
        timings = session.time(PLAN).to_dict()
        facts = asdict(session.facts)
    samples = np.array(timings.pop("samples_ns"), "<i8").tobytes()
    headers = [{"session": 1, "facts": facts}, {"images": 20}, timings, {}]
    texts = [json.dumps(header).encode() for header in headers]
    payloads = [b"", logits, samples, b""]
    hit = random.randrange(len(texts))
    way = random.random()
    if way < 0.1:
        refusal = {"error": random.choice(["RunFailed", "TargetUnavailable", "x", 3]), "message": "no"}
        texts[hit] = mutate.damaged_json(random, json.dumps(refusal))
    elif way < 0.8:
        texts[hit] = mutate.damaged_json(random, texts[hit].decode())
    else:
        payloads[hit] = mutate.damaged(random, payloads[hit])
    lengths = [struct.pack(">IQ", len(text), len(payload)) for text, payload in zip(texts, payloads, strict=True)]
    said = GREETING + b"".join(map(b"".join, zip(lengths, texts, payloads, strict=True)))
    return said if random.random() < 0.8 else mutate.damaged(random, said)
