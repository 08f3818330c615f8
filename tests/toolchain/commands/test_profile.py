"""Surveys: each place says what it truly can, in one table, against the first file of the same runtime there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.load import load
from targets import catalog
from targets.artifact import Artifact, Format
from targets.errors import ConnectionLost, Misplaced, RunFailed
from targets.host.local_target import ColdStart
from targets.null import NullSession, NullTarget
from targets.onnxruntime.cpu import OrtCpu, OrtKernels
from targets.session import Instructions, RuntimeFacts, Session, TimingPlan, Timings
from targets.target import Availability
from tests.fixtures.small_models import artifact, conv_net
from toolchain.commands.profile import ProfileRequest, profile_files
from toolchain.core.context import RunContext
from toolchain.core.errors import UsageProblem
from toolchain.profiling.measurements import IMAGES
from toolchain.report.timings import measurements_table

PLAN = TimingPlan(warmup=2, min_runs=300, min_seconds=0)


class Emulated(NullTarget):
    """A place that counts: by the size of the file, so that figures tell which file they are of."""

    def open(self, artifact: Artifact, *, threads: int = 1) -> Session:
        facts = RuntimeFacts("emulated", "onnxruntime", "1", "QEMU", threads, device_type="emulated")
        return EmulatedSession(artifact, facts, NullTarget(logits=_logits(artifact)))


class EmulatedSession(NullSession):
    def time(self, plan: TimingPlan) -> Timings:
        raise RunFailed("emulated has no latency")

    def count(self, *, runs: int = 5, batch: int = 1) -> Instructions:
        return Instructions(self.artifact.sha256, self.facts, (self.artifact.size,) * runs, batch)


class Astray(Emulated):
    """The same, but every answer is another."""

    def open(self, artifact: Artifact, *, threads: int = 1) -> Session:
        session = super().open(artifact, threads=threads)
        session._target = NullTarget(logits=-_logits(artifact))
        return session


class Elsewhere(OrtKernels):
    """A place that would run a node on another device."""

    formats: frozenset[Format] = frozenset({"onnx"})

    def open(self, artifact: Artifact, *, threads: int = 1) -> Any:
        raise Misplaced("conv would run on the CPU; take the float file")


class Board(NullTarget):
    """A board; its cable is pulled at the second round where it is told to `leave`."""

    host, leave = "board", False

    def open(self, artifact: Artifact, *, threads: int = 1) -> Session:
        facts = RuntimeFacts(self.name, "onnxruntime", "1", "board", threads)
        session = BoardSession(artifact, facts, NullTarget(logits=_logits(artifact)))
        session.left = self.leave
        return session

    def cold_start(self, _artifact: Artifact, *, threads: int) -> ColdStart:
        return ColdStart(1_000_000 * threads, 100_000)


class BoardSession(NullSession):
    left, rounds = False, 0

    def time(self, plan: TimingPlan) -> Timings:
        BoardSession.rounds += self.left
        if self.left and BoardSession.rounds == 2:
            raise ConnectionLost("leaving: the cable was pulled; run the same command again")
        return super().time(plan)


class Leaving(Board):
    host, leave = "leaving", True


class Gone(NullTarget):
    def probe(self) -> Availability:
        return Availability(False, "no board answers", "`pip install plug[usb]`")


def _logits(artifact: Artifact) -> NDArray[np.float32]:
    with OrtCpu().open(artifact) as session:
        return session.run(load("builtin:digits").images[:IMAGES])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Artifact, ...]:
    return tuple(artifact(conv_net(tmp_path / f"{name}.onnx", channels=n)) for name, n in (("a", 4), ("b", 16)))


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Emulated, Astray, Elsewhere, Gone, Board, Leaving):
        name = kind.__name__.lower()
        monkeypatch.setattr(kind, "name", name, raising=False)
        monkeypatch.setitem(catalog.TARGETS, name, f"{__name__}:{kind.__name__}")


@pytest.mark.usefixtures("places")
def test_one_table_says_of_each_place_what_it_can(files: tuple[Artifact, ...]) -> None:
    names = ("ort-cpu", "emulated", "elsewhere", "gone", "null")
    done = profile_files(ProfileRequest(files, names, plan=PLAN))
    rows = {(cell.target, cell.artifact.path.name): cell for cell in done.files}
    assert len(rows) == len(done.files) == 2 * len(names)
    assert rows["ort-cpu", "a.onnx"].timed is not None
    assert rows["ort-cpu", "b.onnx"].ratio is not None
    first, second = (rows["emulated", name] for name in ("a.onnx", "b.onnx"))
    assert (first.timings, first.instructions_ratio) == (None, None)
    assert second.instructions_ratio == pytest.approx(files[1].size / files[0].size)
    assert "would run on the CPU" in rows["elsewhere", "a.onnx"].refused
    assert rows["gone", "a.onnx"].missing
    text = measurements_table(done).text()
    assert "b.onnx on emulated takes more instructions and is larger than a.onnx: " in text
    assert "b.onnx on emulated is slower" not in text
    for remark in ("simulated: outputs match", "`pip install plug[usb]`", "simulated: a script", "they are no time"):
        assert remark in text
    assert json.loads(json.dumps(done.to_dict(), allow_nan=False))["rows"][2]["cost"] == "instructions"


@pytest.mark.usefixtures("places")
def test_a_place_that_answers_otherwise_is_told_loudly(files: tuple[Artifact, ...]) -> None:
    (cell,) = profile_files(ProfileRequest(files[:1], ("astray",), plan=PLAN)).files
    assert cell.agreement is not None
    assert (cell.agreement.match, cell.agreement.differing) == (False, cell.agreement.images)
    measured = profile_files(ProfileRequest(files[:1], ("astray",), plan=PLAN))
    assert "OUTPUTS DIFFER: 64 of 64" in measurements_table(measured).text()


@pytest.fixture
def leaving(places: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoardSession, "rounds", 0)


@pytest.mark.usefixtures("leaving")
def test_a_board_that_goes_away_costs_the_others_nothing(files: tuple[Artifact, ...]) -> None:
    reports: list[tuple[str, int, int]] = []
    request = ProfileRequest(files[:1], ("board", "leaving"), plan=PLAN, rounds=3)
    stayed, lost = profile_files(request, RunContext(progress=lambda *report: reports.append(report))).files
    assert stayed.timed is not None
    assert (lost.timings, lost.missing) == (None, True)
    assert "the cable was pulled" in lost.refused
    assert [done for label, done, _ in reports if label == "timing on board"] == [1, 2, 3]


@pytest.mark.usefixtures("leaving")
@pytest.mark.parametrize(("names", "require"), [(("leaving",), False), (("board", "leaving"), True)])
def test_a_board_that_goes_away_ends_the_run_where_nothing_else_is_left_to_say(
    files: tuple[Artifact, ...], names: tuple[str, ...], require: bool
) -> None:
    with pytest.raises(ConnectionLost, match="run the same command again"):
        profile_files(ProfileRequest(files[:1], names, plan=PLAN, rounds=3, require=require))


@pytest.mark.usefixtures("places")
def test_what_a_place_refuses_ends_the_run_where_that_is_asked_or_nothing_else_is_left_to_say(
    files: tuple[Artifact, ...],
) -> None:
    with pytest.raises(RunFailed, match="would run on the CPU"):
        profile_files(ProfileRequest(files, ("elsewhere",), plan=PLAN))
    with pytest.raises(Misplaced):
        profile_files(ProfileRequest(files, ("ort-cpu", "elsewhere"), plan=PLAN, require=True))


@pytest.mark.usefixtures("places")
def test_a_file_that_one_place_cannot_run_costs_the_others_nothing(
    files: tuple[Artifact, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Elsewhere, refused: Artifact, **_words: object) -> Session:
        raise RunFailed(f"{refused.path}: no kernel for it; export it again")

    monkeypatch.setattr(Elsewhere, "open", refuse)
    usual, other = profile_files(ProfileRequest(files[:1], ("ort-cpu", "elsewhere"), plan=PLAN)).files
    assert usual.timed is not None
    assert ("no kernel for it" in other.refused, other.missing) == (True, False)


def test_a_file_that_its_usual_place_refuses_ends_the_run(files: tuple[Artifact, ...]) -> None:
    whole, broken = files
    broken.path.write_bytes(broken.path.read_bytes()[:-200])
    with pytest.raises(RunFailed, match=r"b\.onnx"):
        profile_files(ProfileRequest((whole, broken), ("ort-cpu", "openvino-cpu"), plan=PLAN))


def test_too_few_samples_are_a_dash_and_say_why(files: tuple[Artifact, ...]) -> None:
    text = measurements_table(profile_files(ProfileRequest(files, plan=replace(PLAN, max_runs=300), rounds=5))).text()
    lines = [line for line in text.splitlines() if "p99.9" in line]
    assert len(lines) == 1, "one line for both files"
    assert lines[0].startswith("no p99, p99.9: 300 samples are too few")
    assert "p99.9" not in text.splitlines()[0], "a column that no cell fills"


def test_the_state_of_a_machine_stands_with_its_name(files: tuple[Artifact, ...]) -> None:
    measured = profile_files(ProfileRequest(files, plan=PLAN))
    assert "\nthis machine: " in measurements_table(measured).text()
    first, second = (replace(file, target="ssh://pi@kitchen") for file in measured.files)
    pi = {"board": "Raspberry Pi 4 Model B", "cores": 4, "governor": "ondemand", "load_average": [0.25, 0, 0]}
    rows = [replace(file, timings=replace(file.timings, machine=pi)) for file in (first, second) if file.timings]
    there = measurements_table(replace(measured, files=tuple(rows))).text()
    assert "this machine" not in there, "nothing ran on it"
    assert "\nssh://pi@kitchen: Raspberry Pi 4 Model B, 4 cores, governor ondemand, load 0.25\n" in there
    both = measurements_table(replace(measured, files=(measured.files[0], rows[1]))).text()
    assert "\nthis machine: " in both
    assert "\nssh://pi@kitchen: Raspberry Pi 4" in both


def test_memory_is_weighed_where_asked(files: tuple[Artifact, ...]) -> None:
    (cell,) = profile_files(ProfileRequest(files[:1], plan=PLAN, memory=True)).files
    assert cell.peak_bytes is not None
    assert cell.peak_bytes > files[0].size
    assert (
        "memory"
        in measurements_table(profile_files(ProfileRequest(files[:1], plan=PLAN, memory=True))).text().splitlines()[0]
    )


@pytest.mark.usefixtures("places")
def test_counts_are_in_the_order_of_the_files(files: tuple[Artifact, ...]) -> None:
    counts = Emulated().count(files)
    assert [one.median for one in counts] == [one.size for one in files]
    assert [len(one.samples) for one in counts] == [5, 5]


def test_a_place_that_cannot_count_says_so(files: tuple[Artifact, ...]) -> None:
    with pytest.raises(RunFailed, match="counts no instructions"):
        OrtCpu().count(files)


def test_a_file_or_a_place_without_a_partner_is_a_usage_error(files: tuple[Artifact, ...]) -> None:
    other = replace(files[0], format="tflite")
    with pytest.raises(UsageProblem, match=r"no --target runs a.onnx; add --target litert-cpu"):
        profile_files(ProfileRequest((files[1], other), ("ort-cpu",)))
    with pytest.raises(UsageProblem, match=r"litert-cpu does not run a.onnx; it takes .tflite"):
        profile_files(ProfileRequest(files, ("ort-cpu", "litert-cpu")))


def test_nothing_to_profile() -> None:
    with pytest.raises(UsageProblem, match="nothing to profile"):
        profile_files(ProfileRequest(()))
