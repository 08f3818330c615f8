from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.load import load
from targets import catalog
from targets.errors import RunFailed
from targets.host import gpu_adapters
from targets.metadata import load_artifact
from targets.session import TimingPlan
from tests.fixtures.emulated import emulated
from tests.fixtures.official_files import write_split
from tests.fixtures.small_readers import linear_reader
from toolchain.commands import press as press_module
from toolchain.commands import press_files, press_request
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import Policy, choose_policy, policy_from
from toolchain.recipe import Prune, Quantize, Recipe, shipped
from toolchain.report.report import Report
from toolchain.stats.decision import Outcome

QUICK = TimingPlan(warmup=2, min_runs=20, min_seconds=0.0, inner=1)
PRUNED = Recipe(name="pruned", steps=(Prune(ratio=0.25, epochs=1),))
SMALL = Recipe(name="small", steps=(Prune(ratio=0.25, epochs=1), Quantize(scheme="static-int8")))


ONE_THREAD = RunContext(threads=1)
shared_floats = pytest.mark.usefixtures("shared_floats")


def listening(labels: list[str]) -> RunContext:
    return RunContext(threads=1, progress=lambda what, *_: labels.append(what))


@pytest.fixture(scope="module")
def request_(checkpoint: Path) -> PressRequest:
    return PressRequest(
        checkpoint=str(checkpoint),
        data="builtin:digits",
        recipes=(shipped()["float"], shipped()["static-int8"]),
        policy=Policy(drop=DropLimit(max=0.02, confidence=0.95)),
        plan=QUICK,
    )


@pytest.fixture(scope="module")
def pressed(request_: PressRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("press") / "out"
    return press(request_, out, ONE_THREAD), out


def test_every_file_of_the_report_is_there_with_a_sidecar_that_traces_it_to_the_checkpoint(
    pressed: tuple[Report, Path],
) -> None:
    report, out = pressed
    assert [row.name for row in report.rows] == [
        f"digits.{name}" for name in ("float.onnx", "float.tflite", "static-int8.onnx", "static-int8.tflite")
    ]
    artifacts = {row.name: load_artifact(out / row.name) for row in report.rows}
    for row in report.rows:
        assert artifacts[row.name].sha256 == row.sha256
    for kind in ("onnx", "tflite"):
        assert artifacts[f"digits.float.{kind}"].parent_sha256 == report.checkpoint.sha256
        assert artifacts[f"digits.static-int8.{kind}"].parent_sha256 == artifacts[f"digits.float.{kind}"].sha256
    extra = {"report.json", "report.md", "report.html", "timings.npz", "converters.log"}
    assert {path.name for path in out.iterdir()} == extra | {
        name for row in report.rows for name in (row.name, f"{row.name}.json")
    }


def test_the_stored_report_is_the_one_that_was_returned(pressed: tuple[Report, Path]) -> None:
    report, out = pressed
    assert Report.load(out) == report
    text = (out / "report.md").read_text()
    assert all(row.name in text for row in report.rows)


def test_the_report_judges_sizes_and_reading_against_the_float_file(pressed: tuple[Report, Path]) -> None:
    report, _ = pressed
    base, *others = report.rows
    assert base.baseline
    assert base.accuracy > 0.95
    assert report.dataset.images == 599
    assert report.calibration is not None
    assert report.calibration["images"] == 512
    assert [row.outcome for row in others] == [Outcome.PASS] * 3
    assert all(row.shrink is not None and row.shrink > 3.55 for row in others if row.recipe == "static-int8")
    winners = [row for row in report.rows if row.winner]
    assert len(winners) == 1
    assert winners[0].recipe == "static-int8"
    assert all(row.p50_ns and row.own_ratio and row.packed for row in report.rows)
    compared = [(row.fidelity is not None and row.fidelity.images) for row in report.rows]
    assert compared == [row.recipe != "float" and 256 for row in report.rows]
    assert [row.own_ratio for row in report.rows if row.recipe == "float"] == [1.0, 1.0]


def test_the_same_press_gives_the_same_files(
    pressed: tuple[Report, Path], request_: PressRequest, tmp_path: Path
) -> None:
    again = press(replace(request_, formats=("onnx",)), tmp_path / "out", ONE_THREAD)
    assert {row.sha256 for row in again.rows} == {row.sha256 for row in pressed[0].rows if row.format == "onnx"}


@shared_floats
@pytest.mark.slow
def test_pruned_recipes_end_in_files_of_their_own(request_: PressRequest, tmp_path: Path) -> None:
    report = press(replace(request_, recipes=(PRUNED, SMALL), formats=("onnx",)), tmp_path / "out", ONE_THREAD)
    sizes = {row.recipe: row.bytes for row in report.rows}
    assert sizes["pruned"] < 0.7 * sizes["float"]
    assert sizes["small"] < 0.3 * sizes["pruned"]
    notes = load_artifact(tmp_path / "out" / "digits.pruned.onnx").notes
    assert any("pruned 25%" in note for note in notes)


def test_a_folder_that_is_there_is_refused_before_any_work(request_: PressRequest, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(UsageProblem, match="--force"):
        press(request_, tmp_path / "mine")
    with pytest.raises(UsageProblem, match=r"no report\.json"):
        press(request_, tmp_path / "mine", RunContext(force=True))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "irreplaceable"


@shared_floats
def test_a_press_that_fails_half_way_leaves_nothing(glyphpress, checkpoint: Path, tmp_path: Path) -> None:
    recipe, ranges = tmp_path / "foreign.toml", tmp_path / "ranges.json"
    ranges.write_text("{}")
    recipe.write_text(
        'name = "foreign"\nformats = ["onnx"]\n[[steps]]\nkind = "quantize"\nscheme = "static-int8"\n'
        f'ranges = "{ranges}"\n'
    )
    done = glyphpress(
        "press", checkpoint, "--data", "builtin:digits", "--recipe", recipe, "--format", "onnx", "--out", tmp_path / "o"
    )
    assert done.code == 3
    assert "no usable ranges" in done.err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"foreign.toml", "ranges.json"}


@shared_floats
def test_row21_few_training_images_are_all_taken_with_a_note(
    glyphpress, checkpoint: Path, digits, digits_test, tmp_path: Path
) -> None:
    train = digits.take(np.arange(160), "few")
    for split, images in (("train", train), ("test", digits_test)):
        write_split(tmp_path / "few", "digits", split, images.images[:], images.labels)
    data = ("--data", f"{tmp_path / 'few'}:digits")
    options = ("--format", "onnx", "--policy", "smoke", "--seconds", "20ms", "--out", tmp_path / "o")
    note = "calibrated on 160 images, not 512: emnist:digits/train has no more different ones outside the test split"
    done = glyphpress("press", checkpoint, *data, *options)
    assert done.code in (0, 5), done.err
    assert done.out.count(note) == 1
    facts = json.loads((tmp_path / "o" / "digits.static-int8.onnx.json").read_text())
    assert facts["calibration"]["images"] == 160
    assert note in facts["notes"]
    leaks = tmp_path / "leaks.toml"
    leaks.write_text("[leaks]\nmax = 0\n")
    pair = ("--baseline", tmp_path / "o" / "digits.float.onnx", "--candidate", tmp_path / "o" / facts["file"])
    judged = glyphpress("gate", *pair, *data, "--policy", leaks)
    assert judged.code == 0, judged.err + judged.out


def test_pruning_that_cannot_be_done_is_refused_before_other_recipes_train(
    request_: PressRequest, tmp_path: Path
) -> None:
    wrong = Recipe(name="wrong", steps=(Prune(ratio=0.25, layers={"no.such.layer": 0.5}),))
    labels: list[str] = []
    with pytest.raises(UsageProblem, match=r"no\.such\.layer"):
        press(replace(request_, recipes=(PRUNED, wrong)), tmp_path / "o", listening(labels))
    assert labels == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipes": (shipped()["static-int8-act16"],), "formats": ("onnx",)}, "makes tflite only"),
        ({"recipes": (SMALL, SMALL)}, "share a name"),
        ({"policy": policy_from({"drop": {"max": "1pp"}, "baseline": {"digest": "0" * 64}})}, "stored baseline"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(change: dict, message: str, request_: PressRequest) -> None:
    with pytest.raises(UsageProblem, match=message):
        replace(request_, **change)


@shared_floats
def test_the_command_says_by_its_exit_code_what_the_report_says(glyphpress, checkpoint: Path, tmp_path: Path) -> None:
    def run(out: str, *more: str):
        command = ("press", checkpoint, "--data", "builtin:digits", "--format", "onnx", "--threads", "1")
        return glyphpress(*command, "--seconds", "10ms", "--out", tmp_path / out, *more)

    passed = run("a", "--policy", "smoke", "--json")
    assert passed.code == 0, passed.err
    shown = json.loads(passed.out)
    assert shown["schema"] == "glyphpress/press/1"
    assert shown["report"]["command"][:2] == ["glyphpress", "press"]
    undecided = run("b", "--max-drop", "0.01pp")
    assert undecided.code == 5
    assert "INCONCLUSIVE" in undecided.out
    assert "next    try other recipes: glyphpress press " in undecided.out
    assert f"--out {tmp_path / 'b'}-next" in undecided.out
    assert len(undecided.err.splitlines()[-1]) < 120
    assert shown["next_steps"] == []
    failed = run("c", "--policy", "smoke", "--max-size", "100KB")
    assert failed.code == 1
    assert (tmp_path / "c" / "report.md").is_file()
    assert "report:" in failed.out


@shared_floats
def test_a_press_for_another_place_reads_and_times_there_and_says_what_it_left_out(
    checkpoint: Path, tmp_path: Path
) -> None:
    request = PressRequest(
        str(checkpoint), "builtin:digits", (shipped()["static-int8"],), target="ort-reference", plan=QUICK
    )
    report = press(request, tmp_path / "out")
    assert {row.target for row in report.rows} == {"ort-reference"}
    assert [row.format for row in report.rows] == ["onnx", "onnx"]
    assert "ort-reference does not run .tflite, so none was made" in report.notes
    assert all(row.p50_ns for row in report.rows)
    # 599 images cannot show a drop of less than 0.3 pp, so nothing is shown to pass, and nothing is added.
    assert len(report.rows) == 2
    assert "float is given back: ship digits.float.onnx" in report.notes[0]
    assert [row.recipe for row in report.rows if row.winner] == ["float"]


@shared_floats
@pytest.mark.parametrize("named", [True, False], ids=["formats by name", "no format named"])
def test_a_format_asked_for_by_name_that_a_recipe_does_not_make_is_told(
    glyphpress, checkpoint: Path, tmp_path: Path, *, named: bool
) -> None:
    formats = ("--format", "onnx", "--format", "tflite") if named else ()
    command = ("press", checkpoint, "--data", "builtin:digits", "--recipe", "weight-int4", *formats)
    settings = ("--policy", "smoke", "--threads", "1", "--seconds", "10ms")
    done = glyphpress(*command, *settings, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert not list(tmp_path.glob("out/*.weight-int4.tflite"))
    note = "weight-int4 makes onnx only, so no weight-int4.tflite was made"
    notes = Report.load(tmp_path / "out").notes
    assert (note in notes, note in (tmp_path / "out" / "report.md").read_text()) == (named, named)
    assert ("weight-int4.tflite" in " ".join(done.out.split())) is named


LENET = """
from torch import nn


def LeNet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )
"""


def test_row62_where_int8_is_slower_than_float_a_file_that_is_not_is_added_and_wins(glyphpress, tmp_path: Path) -> None:
    """ONNX Runtime's int8 convolution of one channel: 2.6 of float's time with VNNI, 2.2 without."""
    (tmp_path / "lenet.py").write_text(LENET)
    (tmp_path / "gate.toml").write_text('[drop]\nmax = "5pp"\n')
    import torch

    namespace: dict = {}
    exec(LENET, namespace)
    torch.manual_seed(0)
    model = namespace["LeNet"]()
    data = load("builtin:digits", "train")
    images, labels = torch.tensor(data.images[:, None] / 255.0).float(), torch.tensor(data.labels).long()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(4):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    torch.save(model.state_dict(), tmp_path / "lenet.pt")
    done = glyphpress(
        *("press", tmp_path / "lenet.pt", "--model", f"{tmp_path / 'lenet.py'}:LeNet()", "--data", "builtin:digits"),
        *("--orientation", "upright", "--scale", "0-1", "--format", "onnx", "--policy", tmp_path / "gate.toml"),
        *("--threads", "1", "--seconds", "200ms", "--out", tmp_path / "out"),
    )
    assert done.code == 0, done.err
    report = Report.load(tmp_path / "out")
    quantized, added = report.rows[1:]
    assert quantized.slower
    assert (added.recipe, added.added, added.winner) == ("weight-int8", True, True)
    assert added.bytes < 0.3 * report.rows[0].bytes
    assert "lenet.weight-int8.onnx was added: no file that was asked for" in done.out
    assert f"slower than lenet.float.onnx: {quantized.name}" in done.out
    assert report.winners["balanced"] == added.name


@shared_floats
@pytest.mark.slow
def test_a_press_for_an_emulated_processor_chooses_by_instructions(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated("cortex-a76")
    # 200 of each file take half a minute there; test_emulated.py looks at answers.
    monkeypatch.setattr(press_request, "_CHECKED", 40)
    loose = Policy(drop=DropLimit(max=0.1, confidence=0.95))
    recipes = shipped()["static-int8"], shipped()["weight-int8"]
    request = PressRequest(
        str(checkpoint), "builtin:digits", recipes, formats=("tflite",), policy=loose, target="arm64:cortex-a76"
    )
    report = press(request, tmp_path / "out")
    assert all(row.instructions and row.p50_ns is None for row in report.rows)
    assert "which is emulated, gave the same answers on 40 test images" in report.notes[-1]
    assert not (tmp_path / "out/timings.npz").exists()
    assert Report.load(tmp_path / "out") == report
    rivals = [row for row in report.rows if row.recipe != "float"]
    (winner,) = [row for row in report.rows if row.winner]
    assert len(rivals) == 2
    assert winner.instructions == min(row.instructions or 0 for row in rivals)
    assert "instructions" in (tmp_path / "out/report.md").read_text()


@pytest.mark.parametrize(
    ("target", "limits", "message"),
    [
        ("arm64:cortex-a76", {"p95": 0.002}, r"is emulated and has no latency; leave \[p95\] out"),
        ("litert-cpu", {}, "litert-cpu runs tflite files only; change --format"),
    ],
)
def test_what_a_place_cannot_do_is_said_before_any_work(
    checkpoint: Path, tmp_path: Path, target: str, limits: dict[str, float], message: str
) -> None:
    policy = choose_policy(None, **limits)
    request = PressRequest(
        str(checkpoint), "builtin:digits", (shipped()["static-int8"],), formats=("onnx",), policy=policy, target=target
    )
    with pytest.raises(UsageProblem, match=message):
        press(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["press", "gate"])
@pytest.mark.parametrize("limit", ["p95", "memory"])
def test_row8_a_profile_that_leads_to_an_emulated_processor_has_no_latency_and_says_so_before_any_work(
    command: str, limit: str, glyphpress, checkpoint: Path, tmp_path: Path
) -> None:
    profile, policy = tmp_path / "board.toml", tmp_path / "gate.toml"
    profile.write_text('reach = "arm64:cortex-a72"\n')
    policy.write_text(f'[drop]\nmax = "1pp"\n[{limit}]\nmax = "{"2ms" if limit == "p95" else "20MB"}"\n')
    options = ["--data", "builtin:digits", "--target", profile, "--policy", policy]
    if command == "press":
        options += [checkpoint, "--out", tmp_path / "out"]
    else:
        for role in ("baseline", "candidate"):
            linear_reader(tmp_path / f"{role}.onnx")
            options += [f"--{role}", tmp_path / f"{role}.onnx"]
    done = glyphpress(command, *options)
    messages = done.err.splitlines()
    assert done.code == 2, done.err
    assert "arm64:cortex-a72 is emulated" in messages[-1]
    assert f"[{limit}]" in messages[-1]
    assert len(messages) == 1, "nothing was read before"


def test_row8_a_profile_is_emulated_where_it_leads_to_a_place_that_counts(tmp_path: Path) -> None:
    profile = tmp_path / "board.toml"
    for reach, counts in [("arm64:cortex-a72", True), ("ort-cpu", False)]:
        profile.write_text(f'reach = "{reach}"\n')
        target = press_request.PressTarget(str(profile), ("onnx",))
        assert (target.emulator is not None) is counts


@shared_floats
@pytest.mark.slow
def test_a_place_that_only_answers_is_none_to_press_for(checkpoint: Path, tmp_path: Path) -> None:
    if not (catalog.get("litert-gpu").probe().ok and gpu_adapters.find().software):
        pytest.skip("no software GPU, or a real one: NOT checked")
    request = PressRequest(str(checkpoint), "builtin:digits", (shipped()["static-int8"],), target="litert-gpu")
    with pytest.raises(StageError, match=r"simulated on .*SwiftShader.*no latency to choose by") as caught:
        press(request, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def refusing(stage: Callable[..., Any], refused: str, log: str = "") -> Callable[..., Any]:
    """A stage that refuses files whose name ends so, as a converter does."""

    def run(source: Any, *args: Any, **options: Any) -> Any:
        path = next((arg for arg in args if isinstance(arg, Path)), source.path if hasattr(source, "path") else None)
        if str(path).endswith(refused):
            if log:
                options["log"].write_text("the whole story")
            raise StageError(
                f"{Path(str(path)).name}: refused"
                + (f"; the converter's whole output is in {options['log']}" if log else "")
            )
        return stage(source, *args, **options)

    return run


@shared_floats
@pytest.mark.parametrize(
    ("stage", "refused", "missing"),
    [
        pytest.param("export", ".float.onnx", ["digits.float.onnx", "digits.static-int8.onnx"], id="row15-conversion"),
        pytest.param("quantize", ".static-int8.onnx", ["digits.static-int8.onnx"], id="row15-quantization"),
    ],
)
def test_what_worked_is_kept_when_one_file_fails(
    stage: str,
    refused: str,
    missing: list[str],
    request_: PressRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(press_files, stage, refusing(getattr(press_files, stage), refused, "log"))
    out = tmp_path / "out"
    report = press(request_, out, ONE_THREAD)
    names = ["float.onnx", "float.tflite", "static-int8.onnx", "static-int8.tflite"]
    assert [failure.name for failure in report.failures] == missing
    assert [row.name for row in report.rows if not row.added] == [
        f"digits.{name}" for name in names if f"digits.{name}" not in missing
    ]
    assert report.rows[0].baseline
    assert f"the converter's whole output is in {out / 'converters.log'}" in report.failures[0].reason
    assert (out / "converters.log").read_text().startswith("the whole story")
    assert Report.load(out) == report
    assert "not made: " in (out / "report.md").read_text()
    with pytest.raises(StageError, match=f"{len(missing)} of 4 files could not be made: {missing[0]}"):
        report.raise_unless_complete()


@shared_floats
def test_row15_a_file_that_cannot_be_read_does_not_ship(
    request_: PressRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press_request, "evaluate", refusing_session(press_request.evaluate, "static-int8.onnx"))
    report = press(replace(request_, formats=("onnx",)), tmp_path / "out", ONE_THREAD)
    assert [failure.name for failure in report.failures] == ["digits.static-int8.onnx"]
    assert not [path.name for path in (tmp_path / "out").iterdir() if "static-int8" in path.name]


@shared_floats
def test_a_file_that_the_press_added_and_cannot_read_is_not_added_again(
    request_: PressRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press_request, "evaluate", refusing_session(press_request.evaluate, "weight-int8.onnx"))
    monkeypatch.setattr(press_module, "extra_recipe", lambda *_: ("weight-int8", "digits.float.onnx"))
    report = press(replace(request_, formats=("onnx",)), tmp_path / "out", ONE_THREAD)
    assert [failure.name for failure in report.failures] == ["digits.weight-int8.onnx"]
    assert [row.name for row in report.rows] == ["digits.float.onnx", "digits.static-int8.onnx"]


def refusing_session(read: Callable[..., Any], refused: str) -> Callable[..., Any]:
    def run(session: Any, *args: Any, **options: Any) -> Any:
        if session.artifact.path.name.endswith(refused):
            raise RunFailed(f"{session.artifact.path.name}: refused; take another")
        return read(session, *args, **options)

    return run


def test_row15_what_cannot_be_quantized_is_known_before_anything_is_pruned(
    request_: PressRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press_files, "quantize", refusing(press_files.quantize, ".onnx"))
    labels: list[str] = []
    asked = replace(request_, recipes=(SMALL,), formats=("onnx",))
    report = press(asked, tmp_path / "out", listening(labels))
    assert [failure.name for failure in report.failures] == ["digits.small.onnx"]
    assert "trying small onnx" in labels
    assert not [what for what in labels if "prune" in what or "epoch" in what or "fine" in what], labels


def test_row15_where_nothing_was_made_the_log_that_is_named_stays(
    request_: PressRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(press_files, "export", refusing(press_files.export, "", "log"))
    with pytest.raises(StageError, match="the converter's whole output is in ") as caught:
        press(request_, tmp_path / "out", ONE_THREAD)
    assert not (tmp_path / "out").exists()
    assert "the whole story" in Path(str(caught.value).rpartition(" in ")[2]).read_text()
