"""Needs: what a policy's limits ask for, said before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from targets.target import Target
from toolchain.errors import UsageProblem
from toolchain.gate.candidate import saved
from toolchain.gate.policy import Policy

# limit -> what a saved evaluation cannot do that the limit asks of the candidate's file.
OF_CANDIDATE = {
    "stress": "be read under damage",
    "runtimes": "be run elsewhere",
    "leaks": "say what calibrated it",
    "packed": "be packed",
    "memory": "be opened",
    "p50": "be timed",
    "p95": "be timed",
    "p50_ratio": "be timed",
    "p95_ratio": "be timed",
}
# A stored baseline may hold its answers under damage, which only reading it tells.
OF_BASELINE = {"p50_ratio": "be timed", "p95_ratio": "be timed"}
TIME_LIMITS = ("p50", "p95", "p50_ratio", "p95_ratio")
OF_IMAGES = ("stress", "runtimes")


def check_needs(policy: Policy, baseline: Path, candidates: Sequence[Path], *, images: bool, train: bool) -> None:
    """Raise UsageProblem, naming the limit or the file, where the policy needs what is not there.

    images, train: whether there are test images, and those that the candidates were trained and calibrated on.
    """
    for file in (baseline, *candidates):
        if not saved(file) and not images:
            raise UsageProblem(f"{file.name} is an artifact, so it needs images to read: add --data")
    limits = [name for name, _ in policy.limits()]
    roles = ((OF_BASELINE, [baseline]), (OF_CANDIDATE, candidates))
    for limit in limits:
        for needs, files in roles:
            _check_file(limit, needs.get(limit), files)
        if limit in OF_IMAGES and not images:
            raise UsageProblem(f"the policy's [{limit}] needs the images: add --data, or drop the limit")
    if "leaks" in limits and not train:
        raise UsageProblem("the policy's [leaks] needs the training images: add --data or --train-data, or drop it")


def check_place(policy: Policy, place: Target) -> None:
    """Raise UsageProblem where the policy limits the latency or the memory of a place that is no device."""
    cost = place.cost
    if cost not in ("instructions", "outputs"):
        return
    what = "emulated" if cost == "instructions" else "simulated"
    limited = [f"[{name}]" for name, _ in policy.limits() if name in TIME_LIMITS]
    if limited:
        raise UsageProblem(f"{place.name} is {what} and has no latency; leave {', '.join(limited)} out")
    if policy.memory is not None:
        raise UsageProblem(f"[memory] is of devices, and {place.name} is {what}; leave it out")


def _check_file(limit: str, need: str | None, files: Sequence[Path]) -> None:
    for file in files:
        if need is not None and saved(file):
            raise UsageProblem(
                f"{file.name} is only a saved evaluation, which cannot {need} ([{limit}]); give the artifact itself, "
                "or drop the limit"
            )
