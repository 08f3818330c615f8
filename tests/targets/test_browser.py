"""The browser: outputs against native runtimes, the page's clock, placement, and everything that may be missing."""

from __future__ import annotations

import base64
import gc
import hashlib
import os
import signal
import subprocess
import tarfile
from concurrent.futures.thread import _global_shutdown_lock
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

from targets import catalog
from targets.artifact import Artifact
from targets.browser import PAGE, BrowserTarget
from targets.browser.chromium import ONNXRUNTIME_WEB, PACKAGES, Package, Page, Worker, executable, require_packages
from targets.errors import Misplaced, RunFailed, TargetUnavailable
from targets.host import cache
from targets.session import TimingPlan
from tests.fixtures.small_models import artifact, glyphs, integer_net, stored

STATE = BrowserTarget().probe()
needs_browser = pytest.mark.skipif(not STATE.ok, reason=f"no browser ({STATE.reason}): NOT checked")
DEVICES = ["wasm", "webgpu"]


@pytest.fixture
def quantized(tmp_path: Path) -> Artifact:
    """An int8 QDQ file."""
    return artifact(integer_net(tmp_path / "qdq.onnx"))


class Recalling:
    """Calls the worker when it becomes garbage."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __del__(self) -> None:
        self._worker.run(int)


@pytest.mark.timeout(30)
def test_a_browser_that_becomes_garbage_while_a_call_is_handed_over_closes() -> None:
    outer, inner = Worker(), Worker()
    for _ in range(300):
        cycle = [Recalling(inner)]
        cycle.append(cycle)  # type: ignore[arg-type]
        del cycle
        # What an executor holds while it takes a call, and where garbage may be collected.
        with _global_shutdown_lock:
            gc.collect(0)
        assert outer.run(int) == 0
    outer.end()
    with pytest.raises(RuntimeError, match="closed"):
        outer.run(int)


@needs_browser
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["onnx_artifact", "tflite_artifact"])
def test_float_answers_are_those_of_the_native_runtime(device: str, kind: str, request: pytest.FixtureRequest) -> None:
    model: Artifact = request.getfixturevalue(kind)
    with BrowserTarget(device=device).open(model) as session:
        answers = session.run(glyphs(70))
    with catalog.default_for(model.format).open(model) as native:
        np.testing.assert_allclose(answers, native.run(glyphs(70)), atol=1e-4)


@needs_browser
def test_ort_files_are_for_processors(onnx_artifact: Artifact, tmp_path: Path) -> None:
    model = artifact(stored(onnx_artifact.path, tmp_path / "net.ort"))
    with BrowserTarget().open(model) as session, catalog.get("ort-cpu").open(model) as native:
        np.testing.assert_allclose(session.run(glyphs(9)), native.run(glyphs(9)), atol=1e-4)
    assert "ort" not in BrowserTarget(device="webgpu").formats


@needs_browser
def test_int8_answers_on_wasm_are_the_native_ones_to_the_bit(quantized: Artifact) -> None:
    with BrowserTarget().open(quantized, threads=2) as session, catalog.get("ort-cpu").open(quantized) as native:
        np.testing.assert_array_equal(session.run(glyphs(70)), native.run(glyphs(70)))


@needs_browser
def test_a_process_that_has_just_ended_does_not_spoil_the_memory_of_the_page(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Page.processes
    with subprocess.Popen(["true"], start_new_session=True) as reserve:
        # Ended, and not yet waited for: it is listed, and has no memory any more.
        os.waitid(os.P_PID, reserve.pid, os.WEXITED | os.WNOWAIT)
        monkeypatch.setattr(Page, "processes", lambda page: [str(reserve.pid), *processes(page)])
        assert BrowserTarget().peak_memory(onnx_artifact) > 1_000_000
        monkeypatch.setattr(Page, "processes", lambda _page: [str(reserve.pid)])
        with pytest.raises(RunFailed, match="omit --memory"):
            BrowserTarget().peak_memory(onnx_artifact)


@needs_browser
def test_webgpu_without_a_gpu_says_so_and_tells_where_the_nodes_are(onnx_artifact: Artifact) -> None:
    with BrowserTarget(device="webgpu").open(onnx_artifact) as session:
        facts = session.facts
        assert list(facts.placement) == ["WebGpuExecutionProvider"]
        assert facts.placement["WebGpuExecutionProvider"] > 0
        if facts.device_type == "software":
            with pytest.raises(RunFailed, match="no latency"):
                session.time(TimingPlan())


@needs_browser
def test_int8_arithmetic_on_webgpu_is_refused_with_nodes_and_advice(quantized: Artifact) -> None:
    with pytest.raises(Misplaced, match=r"CPUExecutionProvider.*QuantizeLinear.*weights alone are int8"):
        BrowserTarget(device="webgpu").open(quantized)


@needs_browser
def test_types_that_browsers_do_not_carry_are_refused(int8_artifact: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"arrays of float32.*not int8 as .*float input") as caught:
        BrowserTarget().open(int8_artifact)
    assert "\n" not in str(caught.value)


@needs_browser
def test_the_page_has_threads_and_the_fine_clock(onnx_artifact: Artifact) -> None:
    page = Page({"page": PAGE})
    try:
        assert page.evaluate("() => crossOriginIsolated && typeof SharedArrayBuffer === 'function'")
        assert page.evaluate("async () => (await import('/page/model.mjs')).resolution()") <= 0.02
    finally:
        page.close()
    with BrowserTarget().open(onnx_artifact) as session:
        timings = session.time(TimingPlan(warmup=3, min_runs=30, min_seconds=0.05))
    assert timings.inner * np.median(timings.samples_ns) >= 100 * 5_000 * 0.99, "a sample outlasts the clock's step"


@needs_browser
def test_a_crash_of_the_page_is_one_line_and_leaves_no_process(onnx_artifact: Artifact) -> None:
    session = BrowserTarget().open(onnx_artifact)
    with session:
        processes = session._page.processes()
        for process in processes:
            os.kill(int(process), signal.SIGKILL)
        with pytest.raises(RunFailed) as caught:
            session.run(glyphs(3))
        assert "\n" not in str(caught.value)
    until = monotonic() + 10
    while any(Path("/proc", process, "exe").exists() for process in processes) and monotonic() < until:
        sleep(0.05)
    assert not any(Path("/proc", process, "exe").exists() for process in processes)


@needs_browser
def test_a_page_serves_its_file_again_and_ends_with_the_target(
    onnx_artifact: Artifact, tflite_artifact: Artifact
) -> None:
    target = BrowserTarget()
    pages = []
    for model in (onnx_artifact, tflite_artifact, onnx_artifact):
        with target.open(model) as session:
            assert session.artifact == model
            pages.append(session._page.processes())
    assert pages[0] == pages[2] != pages[1]
    del session, target
    gc.collect()
    assert not any(Path("/proc", process).exists() for process in (*pages[0], *pages[1]))


def test_a_browser_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLYPHPRESS_CHROMIUM", "/nowhere/chromium")
    state = BrowserTarget().probe()
    assert not state.ok
    assert "/nowhere/chromium" in state.reason
    assert state.fix


@needs_browser
def test_a_program_that_is_no_browser_is_refused(onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLYPHPRESS_CHROMIUM", "/bin/false")
    assert executable() == "/bin/false"
    with pytest.raises(TargetUnavailable, match="/bin/false does not start") as caught:
        BrowserTarget().open(onnx_artifact)
    assert "\n" not in str(caught.value)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "cache"
    monkeypatch.setattr(cache, "user_cache_path", lambda _name: home)
    return home


@needs_browser
def test_without_npm_what_is_missing_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLYPHPRESS_CHROMIUM", executable())
    monkeypatch.setenv("PATH", "/nowhere")
    state = BrowserTarget().probe()
    assert (state.ok, "npm" in state.fix) == (False, True)
    assert "onnxruntime-web" in state.reason


def test_a_package_with_another_digest_is_refused_and_not_kept(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = tmp_path / "forged.tgz"
    with tarfile.open(forged, "w:gz") as archive:
        archive.add(__file__, f"package/{ONNXRUNTIME_WEB.files[0]}")
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\ncp {forged} "$4/onnxruntime-web-1.30.0.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=os.pathsep)
    with pytest.raises(TargetUnavailable, match="the wrong digest"):
        ONNXRUNTIME_WEB.fetch()
    assert not ONNXRUNTIME_WEB.folder.exists()
    assert [path.name for path in (empty_cache / "browser").iterdir()] == ["onnxruntime-web.lock"]


@pytest.mark.usefixtures("empty_cache")
def test_a_registry_that_is_not_reached_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    said = "npm error request to http://127.0.0.1:9/x failed, reason: connect ECONNREFUSED"
    npm.write_text(
        f"#!/bin/sh\necho '{said}' >&2\necho 'npm error A complete log of this run is in x.log' >&2\nexit 1\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=os.pathsep)
    with pytest.raises(TargetUnavailable, match="reason: connect ECONNREFUSED; try again with a network connection"):
        ONNXRUNTIME_WEB.fetch()


@pytest.mark.usefixtures("empty_cache")
def test_a_package_that_lost_a_file_in_the_cache_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(__file__, "package/one.js")
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\ncp {packed} "$4/small-1.0.0.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=os.pathsep)
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    package = Package("small", "1.0.0", digest, ("one.js",))
    monkeypatch.setitem(PACKAGES, "onnx", (package,))
    file = package.fetch() / "one.js"
    for damage in (file.unlink, partial(file.write_bytes, b"")):
        damage()
        assert not package.complete
        require_packages(["onnx"])
        assert (package.fetch() / "one.js").read_bytes() == Path(__file__).read_bytes()
    file.unlink()
    npm.unlink()
    monkeypatch.setattr("shutil.which", lambda _program: None)
    with pytest.raises(TargetUnavailable, match="npm is not here to fetch small"):
        require_packages(["onnx"])
