"""Profile: pair artifacts with targets, check each pair, then measure what its target can measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock

from targets import catalog
from targets.artifact import Artifact
from targets.errors import ConnectionLost, RunFailed, TargetUnavailable
from targets.host.machine import described, machine_state, pinned
from targets.host.runtime_session import resolved_threads
from targets.host.text import json_text
from targets.session import TimingPlan, taints_of
from targets.target import Availability, Target
from toolchain.core.context import Progress, RunContext
from toolchain.core.errors import TaintedRun, UsageProblem
from toolchain.core.files import MARK, whole_folder
from toolchain.evaluation.timings import LatencyRatio
from toolchain.formats.inspection import shown_size
from toolchain.profiling.latency import ROUNDS, started_cold, time_interleaved
from toolchain.profiling.measurements import MeasuredFile, Measurements, agreement, paired, reasons_for
from toolchain.profiling.per_operator import Breakdown, per_operator
from toolchain.profiling.saved import path_for, save, saved_profile
from toolchain.report.page.profile_page import profile_html
from toolchain.report.timings import measurements_csv, measurements_table


@dataclass(frozen=True)
class ProfileRequest:
    """What to profile.

    targets: names of the catalog; none takes the default target of each format. threads, plan: for every timing. pin:
    the cores to run on, of this machine and of boards; none takes all. memory: measure the peak memory of a session
    too. packed: pack large files too. require: it is an error if a target is unavailable, refuses a file or answers
    differently. strict: so it is if the machine was not quiet.
    """

    artifacts: tuple[Artifact, ...]
    targets: tuple[str, ...] = ()
    threads: int = 1
    plan: TimingPlan = field(default_factory=TimingPlan)
    rounds: int = ROUNDS
    pin: tuple[int, ...] = ()
    memory: bool = False
    packed: bool = False
    require: bool = False
    strict: bool = False


@dataclass
class _Pair:
    """An artifact on a target, and what is known of it so far."""

    target: Target
    file: MeasuredFile

    @property
    def cost(self) -> str:
        return self.file.facts.cost if self.file.facts else ""


def profile_files(request: ProfileRequest, context: RunContext | None = None) -> Measurements:
    """Measure every artifact on every target that runs its format.

    Targets on this machine are timed in one interleaved run; then remote boards, all at once, each in a run of its own;
    then instructions are counted on emulated processors. Raises UsageProblem for an artifact or a target without a
    partner, UnknownTarget, RunFailed for a file that its default target, or every target, refuses, TaintedRun if
    `strict`, TargetUnavailable if no target is available. A target that refuses a file, or disconnects for good, does
    not affect the others, unless the request says `require`: then it is an error, and so are answers that differ from
    those of the default target.
    """
    context = context or RunContext()
    pairs = [
        _Pair(target, MeasuredFile(artifact, target.name))
        for target, artifact in paired(request.artifacts, request.targets)
    ]
    states = {target.name: target.probe() for target in {pair.target.name: pair.target for pair in pairs}.values()}
    local = any(not pair.target.host for pair in pairs)
    with pinned(request.pin if local else ()):
        _pin_boards(request, pairs, states)
        _open_all(request, pairs, states, context.progress)
        before = described(machine_state())
        taints = _time_all(request, pairs, context)
        _count_all(request, pairs, context.progress)
        if taints and request.strict:
            raise TaintedRun(f"the machine was not quiet: {'; '.join(taints)}; time when it is, or without --strict")
        packed = partial(shown_size, asked=request.packed, progress=context.progress)
        sized = [replace(pair.file, packed=packed(pair.file.artifact.path)) for pair in pairs]
        files = tuple(_with_ratios(sized, context.seed))
    threads = resolved_threads(request.threads)
    return Measurements(files, request.plan, threads, request.rounds, context.seed, tuple(taints), before)


def operator_times(request: ProfileRequest, context: RunContext) -> tuple[Breakdown, ...]:
    """Time the operators of every artifact that was asked for; raises as `per_operator` does."""
    return per_operator(
        request.artifacts,
        request.targets,
        threads=request.threads,
        batch=request.plan.batch,
        pin=request.pin,
        progress=context.progress,
    )


def write_report(
    out: Path,
    measured: Measurements,
    request: ProfileRequest,
    context: RunContext,
    *,
    operators: bool = False,
    command: Sequence[str] = (),
) -> None:
    """Write the page of a profile, its table, figures and samples into the folder `out`, whole or not at all.

    operators: whether the page shows the times of operators, which are measured for it. Raises as `whole_folder` and
    `per_operator` do.
    """
    breakdowns = operator_times(request, context) if operators else ()
    figures = {"schema": "glyphpress/profile/1"} | measured.to_dict()
    with whole_folder(out, force=context.force, kind="profile") as folder:
        (folder / MARK).write_text(json_text(figures, indent=1) + "\n", encoding="utf-8")
        if any(file.timings for file in measured.files):
            measured.save_samples(folder / "timings.npz")
        (folder / "report.md").write_text(measurements_table(measured).markdown() + "\n", encoding="utf-8")
        (folder / "report.csv").write_text(measurements_csv(measured), encoding="utf-8")
        page = profile_html(measured, breakdowns, command=command)
        (folder / "report.html").write_text(page, encoding="utf-8")


def save_run(folder: Path, measured: Measurements, *, commit: str | None = None, command: Sequence[str] = ()) -> Path:
    """Write a run into the folder of saved runs and return its path; raises as `write_whole` does.

    commit: its name, by default that of git in the current folder or of the CI service.
    """
    created = datetime.now(UTC)
    path = path_for(folder, created)
    save(path, saved_profile(measured, created=created, commit=commit, command=command))
    return path


def _pin_boards(request: ProfileRequest, pairs: list[_Pair], states: dict[str, Availability]) -> None:
    for board in {pair.target.host: pair.target for pair in pairs if pair.target.host and request.pin}.values():
        if states[board.name].ok:
            board.pin(request.pin)


def _open_all(request: ProfileRequest, pairs: list[_Pair], states: dict[str, Availability], progress: Progress) -> None:
    """Open each pair once; raises if none can be measured, or the memory of none can."""
    for done, pair in enumerate(pairs, 1):
        pair.file = _opened(request, pair, states[pair.target.name])
        progress("opening", done, len(pairs))
    if all(pair.file.missing for pair in pairs):
        raise TargetUnavailable(f"{pairs[0].target.name}: {pairs[0].file.refused.removeprefix('not here: ')}")
    if all(pair.file.refused for pair in pairs):
        raise RunFailed(next(pair.file.refused for pair in pairs if not pair.file.missing))
    if request.memory and not any(pair.cost == "latency" for pair in pairs):
        names = ", ".join(dict.fromkeys(pair.target.name for pair in pairs))
        raise UsageProblem(f"--memory measures devices, and of {names} none is one; leave it out")


def _time_all(request: ProfileRequest, pairs: list[_Pair], context: RunContext) -> list[str]:
    """Time the pairs of this machine, then those of all boards at once; return what kept machines from being quiet."""
    local = [pair for pair in pairs if pair.cost in ("latency", "scripted") and not pair.target.host]
    _time(request, local, context)
    taints = [*taints_of(pair.file.timings for pair in local if pair.file.timings)]
    hosts = dict.fromkeys(pair.target.host for pair in pairs if pair.target.host and pair.cost)
    boards = {host: [pair for pair in pairs if pair.target.host == host] for host in hosts}
    lock = Lock()
    with ThreadPoolExecutor(max(1, len(boards))) as pool:
        contexts = [replace(context, progress=_board_progress(host, context.progress, lock)) for host in boards]
        lost = [*filter(None, pool.map(partial(_time_board, request), boards.values(), contexts))]
    if lost and (request.require or all(pair.file.refused for pair in pairs)):
        raise lost[0]
    for host, (first, *_) in boards.items():
        taints += [f"{host}: {taint}" for taint in (first.file.timings.taints if first.file.timings else ())]
    return taints


def _count_all(request: ProfileRequest, pairs: list[_Pair], progress: Progress) -> None:
    for pair in pairs:
        if pair.cost == "instructions":
            counts = pair.target.count([pair.file.artifact], batch=request.plan.batch, progress=progress)
            pair.file = replace(pair.file, instructions=counts[0], facts=counts[0].facts)


def _opened(request: ProfileRequest, pair: _Pair, state: Availability) -> MeasuredFile:
    """Return the file with the facts and the agreement of its session, or with the reason why there is none."""
    artifact, target = pair.file.artifact, pair.target
    if not state.ok:
        if request.require:
            raise TargetUnavailable(f"{target.name}: {state.reason}; {state.fix}")
        return replace(pair.file, refused=f"not here: {state.reason}; {state.fix}", missing=True)
    default = catalog.default_for(artifact.format)
    try:
        with target.open(artifact, threads=request.threads) as session:
            file = replace(pair.file, facts=session.facts)
            if target.name == default.name or session.facts.cost == "scripted":
                return file
            with default.open(artifact) as reference:
                file = replace(file, agreement=agreement(session, reference))
            if request.require and file.agreement and file.agreement.differing:
                raise RunFailed(f"{artifact.path} on {target.name}: {file.agreement} than on {default.name}")
            return file
    except (RunFailed, TargetUnavailable) as error:
        # A file that its default target refuses is broken everywhere.
        if request.require or (target.name == default.name and isinstance(error, RunFailed)):
            raise
        missing = isinstance(error, TargetUnavailable | ConnectionLost)
        return replace(pair.file, refused=str(error), missing=missing)


def _time(request: ProfileRequest, pairs: Sequence[_Pair], context: RunContext) -> None:
    """Time pairs in turns, then start each one cold, and measure its memory if that was asked for."""
    if not pairs:
        return
    openings = [partial(pair.target.open, pair.file.artifact, threads=request.threads) for pair in pairs]
    all_timings = time_interleaved(
        openings, request.plan, rounds=request.rounds, seed=context.seed, progress=context.progress
    )
    for pair, timings in zip(pairs, all_timings, strict=True):
        artifact, target = pair.file.artifact, pair.target
        measures_memory = request.memory and pair.cost == "latency"
        peak = target.peak_memory(artifact, threads=request.threads) if measures_memory else None
        pair.file = replace(pair.file, timings=started_cold(timings, artifact, target), peak_bytes=peak)


def _time_board(request: ProfileRequest, pairs: Sequence[_Pair], context: RunContext) -> ConnectionLost | None:
    """Time the pairs of one board; if the connection is lost for good, note it in their files and return the error."""
    try:
        _time(request, pairs, context)
    except ConnectionLost as error:
        for pair in pairs:
            pair.file = replace(pair.file, timings=None, peak_bytes=None, refused=str(error), missing=True)
        return error
    return None


def _board_progress(host: str, progress: Progress, lock: Lock) -> Progress:
    """Return the progress of one board, which names it; `lock` lets one board at a time report."""

    def report(label: str, done: int, total: int) -> None:
        with lock:
            progress(f"{label} on {host}", done, total)

    return report


def _with_ratios(files: list[MeasuredFile], seed: int) -> Iterator[MeasuredFile]:
    """Yield the files with their ratios to the first one in the same runtime on the same target, and the reasons."""
    first: dict[tuple[str, str], MeasuredFile] = {}
    for file in files:
        base = first.setdefault((file.target, file.facts.runtime if file.facts else ""), file)
        yield file if file is base else _with_reasons(_with_ratio(file, base, seed), base)


def _with_ratio(file: MeasuredFile, base: MeasuredFile, seed: int) -> MeasuredFile:
    if file.timings and base.timings:
        p50, p95 = (LatencyRatio.of(file.timings, base.timings, q=q, seed=seed) for q in (50.0, 95.0))
        return replace(file, ratio=p50, ratio_p95=p95)
    if file.instructions and base.instructions:
        return replace(file, instructions_ratio=file.instructions.median / base.instructions.median)
    return file


def _with_reasons(file: MeasuredFile, base: MeasuredFile) -> MeasuredFile:
    """Return the file with the reasons why it is slower or larger than another one."""
    if not file.facts or file.facts.cost == "scripted":
        return file
    file = replace(file, larger=file.artifact.size > base.artifact.size)
    target = catalog.get(file.target)
    reasons = reasons_for(file.artifact, base.artifact, target, slower=file.slower, larger=file.larger)
    return replace(file, reasons=reasons)
