"""Every target that is available here goes through one suite: the contract of `targets.target`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import pytest

from targets import catalog
from targets.artifact import Artifact, file_sha256
from targets.errors import ArtifactError, Misplaced, RunFailed
from targets.null import NullTarget
from targets.session import Session, TimingPlan, Timings
from targets.target import Target
from tests.fixtures.small_models import artifact, conv_net, glyphs, integer_net

SHORT = TimingPlan(warmup=3, min_runs=30, min_seconds=0.01)


EVERY = [
    *catalog.names(),
    "browser,device=webgpu",
    pytest.param("arm64:cortex-a76", marks=pytest.mark.slow),
    pytest.param("ssh", marks=pytest.mark.slow),
]


@pytest.fixture(params=EVERY, scope="module")
def target(request: pytest.FixtureRequest) -> Target:
    """Each target in turn; its own tests run one after the other."""
    place = catalog.get(request.getfixturevalue("kitchen").word if request.param == "ssh" else request.param)
    state = place.probe()
    if not state.ok:
        pytest.skip(f"{place.name} is not here ({state.reason}): NOT checked")
    return place


@pytest.fixture(scope="module")
def model(target: Target, onnx_artifact: Artifact, request: pytest.FixtureRequest) -> Artifact:
    return onnx_artifact if "onnx" in target.formats else request.getfixturevalue("tflite_artifact")


@pytest.fixture(scope="module")
def session(target: Target, model: Artifact) -> Iterator[Session]:
    """One session that answers many calls, as users hold it."""
    with target.open(model) as opened:
        yield opened


@pytest.fixture
def integers(target: Target, tmp_path: Path) -> Artifact:
    if "onnx" not in target.formats:
        pytest.skip(f"{target.name} runs .tflite, whose integers its own tests look at")
    return artifact(integer_net(tmp_path / "integer.onnx"))


def timed(session: Session, plan: TimingPlan) -> Timings:
    """Time it; a place without a latency must refuse, and nothing is left to look at."""
    if session.facts.cost in ("latency", "scripted"):
        return session.time(plan)
    with pytest.raises(RunFailed, match="no latency") as caught:
        session.time(plan)
    assert "\n" not in str(caught.value)
    pytest.skip(f"{session.facts.target} is simulated, and refuses to time")


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 130])
def test_any_number_of_images_is_answered(session: Session, count: int) -> None:
    logits = session.run(glyphs(count))
    assert logits.shape == (count, 10)
    assert logits.dtype == np.float32


def test_an_image_is_answered_alike_alone_and_in_company(session: Session) -> None:
    images = glyphs(70)
    together = session.run(images)
    alone = np.concatenate([session.run(images[k : k + 1]) for k in range(len(images))])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.ptp(together, axis=0).min() > 0, "images must not all be answered alike"


def test_integers_at_the_borders_stand_for_what_they_stand_for_here(target: Target, integers: Artifact) -> None:
    with catalog.default_for("onnx").open(integers) as here:
        meant = here.run(glyphs(40))
    assert len(np.unique(meant)) > 20
    if "webgpu" in target.name:  # it has no kernels for them
        with pytest.raises(Misplaced, match="weights alone are int8"):
            target.open(integers)
        return
    with target.open(integers) as session:
        # A sum may round to the next step of the output, which is half a logit.
        assert session.facts.cost == "scripted" or np.abs(session.run(glyphs(40)) - meant).max() <= 0.5


@pytest.mark.parametrize(
    "images",
    [glyphs(2).astype(np.float32), glyphs(2)[0], glyphs(2)[:, :14], glyphs(2)[:, None]],
    ids=["float", "one image without an axis", "14x28", "with a channel axis"],
)
def test_images_of_another_kind_are_refused(session: Session, images: np.ndarray) -> None:
    with pytest.raises(RunFailed) as caught:
        session.run(images)
    assert "\n" not in str(caught.value)


def test_nan_logits_are_no_answer(target: Target, nan_artifacts: dict[str, Artifact], model: Artifact) -> None:
    opener = NullTarget(logits=np.full((1, 10), np.nan)) if target.name == "null" else target
    # A runtime sees it at the first inference, when the file is opened; a script only when it is asked.
    refused = "(5 of 5|1 of 1) images are not finite"
    with pytest.raises(RunFailed, match=refused), opener.open(nan_artifacts[model.format]) as session:
        session.run(glyphs(5))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_runtime_are_recorded(target: Target, model: Artifact, threads: int) -> None:
    with target.open(model, threads=threads) as session:
        facts = session.facts
        assert facts.cost == "outputs" or timed(session, SHORT).facts == facts
    assert (facts.target, facts.threads, facts.simulated) == (target.name, threads, facts.cost != "latency")
    assert facts.runtime
    assert facts.version


def test_a_session_says_the_cost_that_its_target_announced(target: Target, session: Session) -> None:
    assert session.facts.cost == target.cost


def test_a_process_that_does_nothing_else_is_timed_and_weighed(target: Target, model: Artifact) -> None:
    if target.cost != "latency":
        pytest.skip(f"{target.name} is no device: nothing of it starts or is weighed")
    cold = target.cold_start(model)
    assert cold is not None
    assert 1_000 < cold.first_run_ns < 60e9
    assert 10_000 < cold.load_ns < 60e9
    assert 10_000 < target.peak_memory(model) < 2**31


def test_instructions_are_counted_where_that_is_the_cost(target: Target, model: Artifact) -> None:
    if target.cost == "instructions":
        (alone,), (first, second) = target.count([model], runs=2), target.count([model] * 2, runs=2, together=True)
        assert len(alone.samples) == len(first.samples) == 2
        assert first.median == pytest.approx(alone.median, rel=0.02)
        # What ran before it moves where its memory lies: 4 % of so small a file.
        assert second.median == pytest.approx(alone.median, rel=0.1)
        return
    with pytest.raises(RunFailed, match="counts no instructions") as caught:
        target.count([model])
    assert "\n" not in str(caught.value)


def test_timings_are_raw_and_plausible(session: Session, model: Artifact) -> None:
    plan = TimingPlan(warmup=2, min_runs=200, min_seconds=0.1)
    start = perf_counter_ns()
    timings = timed(session, plan)
    passed = perf_counter_ns() - start
    assert timings.samples_ns.dtype == np.int64
    assert len(timings.samples_ns) >= plan.min_runs
    assert 1_000 < np.median(timings.samples_ns) < 1e8, "a convolution takes between 1 us and 100 ms"
    # How much of the time lies in the samples is not said: a busy machine takes the core away between two of them too.
    if timings.facts.cost == "latency":
        assert max(plan.min_seconds * 1e9, timings.samples_ns.sum() * timings.inner) <= passed
    assert timings.load_ns > 0
    assert timings.first_run_ns > 0
    assert (timings.batch, timings.warmup, timings.artifact_sha256) == (1, 2, model.sha256)
    assert timings.machine["architecture"]


def test_the_count_of_samples_is_bounded(session: Session) -> None:
    timings = timed(session, TimingPlan(min_runs=5, max_runs=7, min_seconds=30))
    assert len(timings.samples_ns) == 7


def test_several_inferences_a_sample_on_request(session: Session) -> None:
    single = timed(session, replace(SHORT, inner=1))
    fourfold = timed(session, TimingPlan(warmup=3, min_runs=30, min_seconds=0.01, inner=4))
    assert (single.inner, fourfold.inner) == (1, 4)
    assert 0.2 < np.median(fourfold.samples_ns) / np.median(single.samples_ns) < 3, "a sample is per inference"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(500)], ids=["empty", "a picture"])
def test_a_file_that_is_no_model_is_refused_in_one_line(target: Target, tmp_path: Path, content: bytes) -> None:
    if target.name == "null":
        pytest.skip("the null target reads no file")
    path = conv_net(tmp_path / "net.onnx")
    good = artifact(path)
    bad = tmp_path / f"bad.{min(target.formats)}"
    bad.write_bytes(content)
    with pytest.raises((RunFailed, ArtifactError)) as caught:
        target.open(replace(good, path=bad, sha256=file_sha256(bad)))
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_printed(target: Target, model: Artifact, capfd: pytest.CaptureFixture[str]) -> None:
    with target.open(model) as session:
        session.run(glyphs(3))
    assert capfd.readouterr() == ("", "")
