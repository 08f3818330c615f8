"""How a survey comes about: pair artifacts with places, open each pair once, then cost it by what its place can say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock

from targets import catalog
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, TargetUnavailable
from targets.host.machine import machine_state
from targets.host.pinning import pinned
from targets.session import resolved_threads
from targets.target import Availability, Target, TimingPlan, taints_of
from toolchain.errors import TaintedRun, UsageProblem
from toolchain.evaluation.ratio import LatencyRatio
from toolchain.packed import shown_size
from toolchain.profiling.agreement import agreement
from toolchain.profiling.cells import Cell, Survey
from toolchain.profiling.latency import ROUNDS, started_cold, time_interleaved
from toolchain.profiling.pairs import paired
from toolchain.profiling.regret import regrets
from toolchain.progress import Progress, silent


@dataclass(frozen=True)
class SurveyRequest:
    """What is asked of a survey.

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
    cell: Cell

    @property
    def cost(self) -> str:
        return self.cell.facts.cost if self.cell.facts else ""

    @property
    def host(self) -> str:
        return self.place.host


def survey(request: SurveyRequest, *, progress: Progress = silent) -> Survey:
    """Cost every artifact in every place that takes it.

    Places of this machine are timed in one interleaved run; then remote boards, all at once, each in a run of its own;
    then emulated processors count. Raises UsageProblem for an artifact or a place without a partner, UnknownTarget,
    RunFailed for a file that its usual place, or every place, refuses, TaintedRun where `strict`, TargetUnavailable if
    no place is here. A place that refuses a file, or goes away for good, costs the others nothing. Where `require`, any
    place that is not here or refuses a file is an error, and so are answers that are others than on the usual place.
    """
    pairs = [_Pair(place, Cell(one, place.name)) for place, one in paired(request.artifacts, request.targets)]
    states = {place.name: place.probe() for place in {pair.place.name: pair.place for pair in pairs}.values()}
    local = any(not pair.host for pair in pairs)
    with pinned(request.pin if local else ()):
        return _surveyed(request, pairs, states, progress)


def _surveyed(
    request: SurveyRequest, pairs: list[_Pair], states: dict[str, Availability], progress: Progress
) -> Survey:
    for place in {pair.host: pair.place for pair in pairs if pair.host and request.pin}.values():
        if states[place.name].ok:
            place.pin(request.pin)
    for done, pair in enumerate(pairs, 1):
        pair.cell = _opened(request, pair, states[pair.place.name])
        progress("opening", done, len(pairs))
    if all(pair.cell.missing for pair in pairs):
        raise TargetUnavailable(f"{pairs[0].place.name}: {pairs[0].cell.refused.removeprefix('not here: ')}")
    if all(pair.cell.refused for pair in pairs):
        raise RunFailed(next(pair.cell.refused for pair in pairs if not pair.cell.missing))
    if request.memory and not any(pair.cost == "latency" for pair in pairs):
        places = ", ".join(dict.fromkeys(pair.place.name for pair in pairs))
        raise UsageProblem(f"--memory measures devices, and of {places} none is one; leave it out")
    before = machine_state()
    here = [pair for pair in pairs if pair.cost in ("latency", "scripted") and not pair.host]
    _time(request, here, progress)
    tainted = [*taints_of(pair.cell.timings for pair in here if pair.cell.timings)]
    boards = {pair.host: [one for one in pairs if one.host == pair.host] for pair in pairs if pair.host and pair.cost}
    turn = Lock()
    with ThreadPoolExecutor(max(1, len(boards))) as pool:
        told = [_of_board(host, progress, turn) for host in boards]
        lost = [*filter(None, pool.map(partial(_time_there, request), boards.values(), told))]
    if lost and (request.require or all(pair.cell.refused for pair in pairs)):
        raise lost[0]
    for pair in pairs:
        if pair.cost == "instructions":
            counts = pair.place.count([pair.cell.artifact], batch=request.plan.batch, progress=progress)
            pair.cell = replace(pair.cell, instructions=counts[0], facts=counts[0].facts)
    for host, (first, *_) in boards.items():
        tainted += [f"{host}: {word}" for word in (first.cell.timings.taints if first.cell.timings else ())]
    if tainted and request.strict:
        raise TaintedRun(f"the machine was not quiet: {'; '.join(tainted)}; time when it is, or without --strict")
    packed = partial(shown_size, asked=request.packed, progress=progress)
    sized = [replace(pair.cell, packed=packed(pair.cell.artifact.path)) for pair in pairs]
    cells = tuple(_with_ratios(sized, request.seed))
    threads = resolved_threads(request.threads)
    return Survey(cells, request.plan, threads, request.rounds, request.seed, tuple(tainted), before)


def _opened(request: SurveyRequest, pair: _Pair, state: Availability) -> Cell:
    """Return the cell with the facts and the agreement of its session, or with why there is none."""
    artifact, place = pair.cell.artifact, pair.place
    if not state.ok:
        if request.require:
            raise TargetUnavailable(f"{place.name}: {state.reason}; {state.fix}")
        return replace(pair.cell, refused=f"not here: {state.reason}; {state.fix}", missing=True)
    usual = catalog.default_for(artifact.format)
    try:
        with place.open(artifact, threads=request.threads) as session:
            cell = replace(pair.cell, facts=session.facts)
            if place.name == usual.name or session.facts.cost == "scripted":
                return cell
            with usual.open(artifact) as here:
                cell = replace(cell, agreement=agreement(session, here))
            if request.require and cell.agreement and cell.agreement.differing:
                raise RunFailed(f"{artifact.path} on {place.name}: {cell.agreement} than on {usual.name}")
            return cell
    except (RunFailed, TargetUnavailable) as error:
        # What its usual place refuses is broken everywhere.
        if request.require or (place.name == usual.name and isinstance(error, RunFailed)):
            raise
        missing = isinstance(error, TargetUnavailable | ConnectionLost)
        return replace(pair.cell, refused=str(error), missing=missing)


def _time(request: SurveyRequest, pairs: Sequence[_Pair], progress: Progress) -> None:
    """Time pairs in turns, then start each cold, and weigh it where asked."""
    if not pairs:
        return
    openings = [partial(pair.place.open, pair.cell.artifact, threads=request.threads) for pair in pairs]
    measured = time_interleaved(openings, request.plan, rounds=request.rounds, seed=request.seed, progress=progress)
    for pair, timings in zip(pairs, measured, strict=True):
        artifact = pair.cell.artifact
        weighed = request.memory and pair.cost == "latency"
        peak = pair.place.peak_memory(artifact, threads=request.threads) if weighed else None
        pair.cell = replace(pair.cell, timings=started_cold(timings, artifact, pair.place), peak_bytes=peak)


def _time_there(request: SurveyRequest, pairs: Sequence[_Pair], progress: Progress) -> ConnectionLost | None:
    """Time the pairs of one board; return what went wrong, in their cells too, where it went away for good."""
    try:
        _time(request, pairs, progress)
    except ConnectionLost as error:
        for pair in pairs:
            pair.cell = replace(pair.cell, timings=None, peak_bytes=None, refused=str(error), missing=True)
        return error
    return None


def _of_board(host: str, progress: Progress, turn: Lock) -> Progress:
    """Return the progress of one of several boards; they speak one at a time."""

    def told(label: str, done: int, total: int) -> None:
        with turn:
            progress(f"{label} on {host}", done, total)

    return told


def _with_ratios(cells: list[Cell], seed: int) -> Iterator[Cell]:
    """Yield the cells with their ratios to the first one of the same runtime in the same place, and what is behind."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        base = first.setdefault((cell.target, cell.facts.runtime if cell.facts else ""), cell)
        yield cell if cell is base else _explained(_with_ratio(cell, base, seed), base)


def _with_ratio(cell: Cell, base: Cell, seed: int) -> Cell:
    if cell.timings and base.timings:
        p50, p95 = (LatencyRatio.of(cell.timings, base.timings, q=q, seed=seed) for q in (50.0, 95.0))
        return replace(cell, ratio=p50, ratio_p95=p95)
    if cell.instructions and base.instructions:
        return replace(cell, instructions_ratio=cell.instructions.median / base.instructions.median)
    return cell


def _explained(cell: Cell, base: Cell) -> Cell:
    if not cell.facts or cell.facts.cost == "scripted":
        return cell
    cell = replace(cell, larger=cell.artifact.size > base.artifact.size)
    why = regrets(cell.artifact, base.artifact, catalog.get(cell.target), slower=cell.slower, larger=cell.larger)
    return replace(cell, reasons=why)
