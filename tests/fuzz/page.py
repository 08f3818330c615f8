"""A page of a browser whose answers were damaged: the session must not trust them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np

from calibration.load import load
from targets.browser import BrowserSession
from targets.browser.chromium import Page
from targets.metadata import load_artifact
from targets.session import RuntimeFacts, TimingPlan
from tests.fuzz import mutate
from tests.fuzz.program import guarded

PLAN = TimingPlan(warmup=0, min_runs=20, min_seconds=0.0)
FACTS = RuntimeFacts("browser", "onnxruntime-web", "1", "wasm", 1)


def asked(random: Random, path: Path) -> int:
    """Open, run and time a file in a page that gives damaged answers; return the exit code."""

    def talk() -> None:
        page = cast(Page, _Page(random))
        with BrowserSession(load_artifact(path), FACTS, page, "wasm") as session:
            session.run(load("builtin:digits", "test").images[:20])
            session.time(PLAN)

    return guarded(talk)


class _Page:
    """Answers as the page's script does, but for one damaged answer."""

    console: tuple[str, ...] = ()

    def __init__(self, random: Random) -> None:
        self.random, self.asked, self.hit, self.images = random, 0, random.choice([0, 2, 4, 6]), 1

    def evaluate(self, script: str, argument: Any = None) -> Any:
        answer = self._answer(script, argument)
        damage = self.asked == self.hit
        self.asked += 1
        while damage:
            try:
                return json.loads(mutate.damaged_json(self.random, json.dumps(answer)))
            except ValueError:  # no JSON, which a page cannot send
                continue
        return answer

    def close(self) -> None:
        pass

    def _answer(self, script: str, argument: Any) -> Any:
        if "open" in script:
            return {"loadNs": 5.0, "accelerated": True}
        if "place" in script:
            self.images = argument[1][0]
            return None
        if "time" in script:
            return {"samples": [1000.0] * 20, "inner": 1}
        values = base64.b64encode(np.ones((self.images, 10), np.float32).tobytes()).decode()
        return [["float32", [self.images, 10], values], 5.0]
