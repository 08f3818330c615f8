"""Profile: pair artifacts with targets, open each pair once, then measure what the target can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock

from targets import catalog
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, TargetUnavailable
from targets.host.machine import machine_state, pinned
from targets.host.runtime_session import resolved_threads
from targets.session import TimingPlan, taints_of
from targets.target import Availability, Target
from toolchain.core.errors import TaintedRun, UsageProblem
from toolchain.core.progress import Progress, silent
from toolchain.evaluation.ratio import LatencyRatio
from toolchain.formats.packed import shown_size
from toolchain.profiling.agreement import agreement
from toolchain.profiling.latency import ROUNDS, started_cold, time_interleaved
from toolchain.profiling.measurements import MeasuredFile, Measurements
from toolchain.profiling.pairs import paired
from toolchain.profiling.reasons import reasons_for


@dataclass(frozen=True)
class ProfileRequest:
    """What to profile.

    targets: words of the catalog; none for the place that each format runs on by default. threads, plan: of every
    timing. pin: the cores to keep to, on this machine and on boards; none for all. memory: weigh opening too.
    packed: pack large files too.
    require: a place that is not here, refuses a file or answers otherwise is an error. strict: so is a machine that was
    not quiet.
    """

    artifacts: tuple[Artifact, ...]
    targets: tuple[str, ...] = ()
    threads: int = 1
    plan: TimingPlan = field(default_factory=TimingPlan)
    rounds: int = ROUNDS
    seed: int = 0
    pin: tuple[int, ...] = ()
    memory: bool = False
    packed: bool = False
    require: bool = False
    strict: bool = False


@dataclass
class _Pair:
    """An artifact in a place, and what is known of it so far."""

    place: Target
    file: MeasuredFile

    @property
    def cost(self) -> str:
        return self.file.facts.cost if self.file.facts else ""

    @property
    def host(self) -> str:
        return self.place.host


def profile_files(request: ProfileRequest, *, progress: Progress = silent) -> Measurements:
    """Cost every artifact in every place that takes it.

    Places of this machine are timed in one interleaved run; then remote boards, all at once, each in a run of its own;
    then emulated processors count. Raises UsageProblem for an artifact or a place without a partner, UnknownTarget,
    RunFailed for a file that its usual place, or every place, refuses, TaintedRun where `strict`, TargetUnavailable if
    no place is here. A place that refuses a file, or goes away for good, costs the others nothing. Where `require`, any
    place that is not here or refuses a file is an error, and so are answers that are others than on the usual place.
    """
    pairs = [_Pair(place, MeasuredFile(one, place.name)) for place, one in paired(request.artifacts, request.targets)]
    states = {place.name: place.probe() for place in {pair.place.name: pair.place for pair in pairs}.values()}
    local = any(not pair.host for pair in pairs)
    with pinned(request.pin if local else ()):
        return _measured(request, pairs, states, progress)


def _measured(
    request: ProfileRequest, pairs: list[_Pair], states: dict[str, Availability], progress: Progress
) -> Measurements:
    for place in {pair.host: pair.place for pair in pairs if pair.host and request.pin}.values():
        if states[place.name].ok:
            place.pin(request.pin)
    for done, pair in enumerate(pairs, 1):
        pair.file = _opened(request, pair, states[pair.place.name])
        progress("opening", done, len(pairs))
    if all(pair.file.missing for pair in pairs):
        raise TargetUnavailable(f"{pairs[0].place.name}: {pairs[0].file.refused.removeprefix('not here: ')}")
    if all(pair.file.refused for pair in pairs):
        raise RunFailed(next(pair.file.refused for pair in pairs if not pair.file.missing))
    if request.memory and not any(pair.cost == "latency" for pair in pairs):
        places = ", ".join(dict.fromkeys(pair.place.name for pair in pairs))
        raise UsageProblem(f"--memory measures devices, and of {places} none is one; leave it out")
    before = machine_state()
    here = [pair for pair in pairs if pair.cost in ("latency", "scripted") and not pair.host]
    _time(request, here, progress)
    tainted = [*taints_of(pair.file.timings for pair in here if pair.file.timings)]
    boards = {pair.host: [one for one in pairs if one.host == pair.host] for pair in pairs if pair.host and pair.cost}
    turn = Lock()
    with ThreadPoolExecutor(max(1, len(boards))) as pool:
        told = [_of_board(host, progress, turn) for host in boards]
        lost = [*filter(None, pool.map(partial(_time_there, request), boards.values(), told))]
    if lost and (request.require or all(pair.file.refused for pair in pairs)):
        raise lost[0]
    for pair in pairs:
        if pair.cost == "instructions":
            counts = pair.place.count([pair.file.artifact], batch=request.plan.batch, progress=progress)
            pair.file = replace(pair.file, instructions=counts[0], facts=counts[0].facts)
    for host, (first, *_) in boards.items():
        tainted += [f"{host}: {word}" for word in (first.file.timings.taints if first.file.timings else ())]
    if tainted and request.strict:
        raise TaintedRun(f"the machine was not quiet: {'; '.join(tainted)}; time when it is, or without --strict")
    packed = partial(shown_size, asked=request.packed, progress=progress)
    sized = [replace(pair.file, packed=packed(pair.file.artifact.path)) for pair in pairs]
    files = tuple(_with_ratios(sized, request.seed))
    threads = resolved_threads(request.threads)
    return Measurements(files, request.plan, threads, request.rounds, request.seed, tuple(tainted), before)


def _opened(request: ProfileRequest, pair: _Pair, state: Availability) -> MeasuredFile:
    """Return the file with the facts and the agreement of its session, or with why there is none."""
    artifact, place = pair.file.artifact, pair.place
    if not state.ok:
        if request.require:
            raise TargetUnavailable(f"{place.name}: {state.reason}; {state.fix}")
        return replace(pair.file, refused=f"not here: {state.reason}; {state.fix}", missing=True)
    usual = catalog.default_for(artifact.format)
    try:
        with place.open(artifact, threads=request.threads) as session:
            file = replace(pair.file, facts=session.facts)
            if place.name == usual.name or session.facts.cost == "scripted":
                return file
            with usual.open(artifact) as here:
                file = replace(file, agreement=agreement(session, here))
            if request.require and file.agreement and file.agreement.differing:
                raise RunFailed(f"{artifact.path} on {place.name}: {file.agreement} than on {usual.name}")
            return file
    except (RunFailed, TargetUnavailable) as error:
        # What its usual place refuses is broken everywhere.
        if request.require or (place.name == usual.name and isinstance(error, RunFailed)):
            raise
        missing = isinstance(error, TargetUnavailable | ConnectionLost)
        return replace(pair.file, refused=str(error), missing=missing)


def _time(request: ProfileRequest, pairs: Sequence[_Pair], progress: Progress) -> None:
    """Time pairs in turns, then start each cold, and weigh it where asked."""
    if not pairs:
        return
    openings = [partial(pair.place.open, pair.file.artifact, threads=request.threads) for pair in pairs]
    measured = time_interleaved(openings, request.plan, rounds=request.rounds, seed=request.seed, progress=progress)
    for pair, timings in zip(pairs, measured, strict=True):
        artifact = pair.file.artifact
        weighed = request.memory and pair.cost == "latency"
        peak = pair.place.peak_memory(artifact, threads=request.threads) if weighed else None
        pair.file = replace(pair.file, timings=started_cold(timings, artifact, pair.place), peak_bytes=peak)


def _time_there(request: ProfileRequest, pairs: Sequence[_Pair], progress: Progress) -> ConnectionLost | None:
    """Time the pairs of one board; return what went wrong, in their files too, where it went away for good."""
    try:
        _time(request, pairs, progress)
    except ConnectionLost as error:
        for pair in pairs:
            pair.file = replace(pair.file, timings=None, peak_bytes=None, refused=str(error), missing=True)
        return error
    return None


def _of_board(host: str, progress: Progress, turn: Lock) -> Progress:
    """Return the progress of one of several boards; they speak one at a time."""

    def told(label: str, done: int, total: int) -> None:
        with turn:
            progress(f"{label} on {host}", done, total)

    return told


def _with_ratios(files: list[MeasuredFile], seed: int) -> Iterator[MeasuredFile]:
    """Yield the files with their ratios to the first one of the same runtime in the same place, and what is behind."""
    first: dict[tuple[str, str], MeasuredFile] = {}
    for file in files:
        base = first.setdefault((file.target, file.facts.runtime if file.facts else ""), file)
        yield file if file is base else _explained(_with_ratio(file, base, seed), base)


def _with_ratio(file: MeasuredFile, base: MeasuredFile, seed: int) -> MeasuredFile:
    if file.timings and base.timings:
        p50, p95 = (LatencyRatio.of(file.timings, base.timings, q=q, seed=seed) for q in (50.0, 95.0))
        return replace(file, ratio=p50, ratio_p95=p95)
    if file.instructions and base.instructions:
        return replace(file, instructions_ratio=file.instructions.median / base.instructions.median)
    return file


def _explained(file: MeasuredFile, base: MeasuredFile) -> MeasuredFile:
    if not file.facts or file.facts.cost == "scripted":
        return file
    file = replace(file, larger=file.artifact.size > base.artifact.size)
    why = reasons_for(file.artifact, base.artifact, catalog.get(file.target), slower=file.slower, larger=file.larger)
    return replace(file, reasons=why)
