"""A model of some of the data's classes is trained, pressed and judged on their images alone (row 17)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolchain.core.context import RunContext

SOME = ("--data", "builtin:digits", "--classes", "86420")


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn-small that reads the even digits, in descending order."""
    from calibration.load import load
    from toolchain.training.presets import preset
    from toolchain.training.train import train

    path = tmp_path_factory.mktemp("even") / "even.pt"
    train(
        load("builtin:digits[86420]", "train"),
        settings=preset("digits").changed(epochs=4),
        out=path,
        context=RunContext(threads=1),
    )
    return path


@pytest.fixture(scope="module")
def exported(even: Path) -> Path:
    from toolchain.checkpoint import CheckpointRequest
    from toolchain.commands.export import export_checkpoint

    return export_checkpoint(str(even), CheckpointRequest(), even.with_name("even.onnx"), context=RunContext()).path


@pytest.fixture(scope="module")
def bare(even: Path) -> Path:
    """Its weights alone, which say nothing about classes or preprocess."""
    import torch

    path = even.with_name("bare.pt")
    torch.save(torch.load(even, weights_only=True)["state_dict"], path)
    return path


def test_row17_train_takes_the_chosen_classes(glyphpress, tmp_path: Path) -> None:
    ran = glyphpress("train", *SOME, "--epochs", 1, "--threads", 1, "-o", tmp_path / "m.pt", "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["classes"]) == (0, list("86420"))
    assert said["data"]["origin"] == "builtin:digits[86420]/train"
    assert said["test"]["origin"] == "builtin:digits[86420]/test"


def test_row17_press_of_fewer_columns_than_the_data_has_classes(glyphpress, bare: Path, tmp_path: Path) -> None:
    """On ba5328f: IndexError and exit 70."""
    words = ("--model", "cnn-small", "--format", "onnx", "--seconds", "20ms", "--policy", "smoke", "--json")
    ran = glyphpress("press", bare, *SOME, *words, "--out", tmp_path / "out")
    report = json.loads(ran.out)["report"]
    assert ran.code in (0, 1, 5), ran.err
    assert report["dataset"]["classes"] == list("86420")
    assert report["dataset"]["origin"] == "builtin:digits[86420]/test"
    assert report["calibration"]["origin"] == "builtin:digits[86420]/train"
    assert report["rows"][0]["accuracy"] > 0.9
    sidecar = json.loads((tmp_path / "out" / "bare.static-int8.onnx.json").read_text())
    assert sidecar["classes"] == list("86420")
    assert sidecar["calibration"]["origin"] == "builtin:digits[86420]/train"


def test_row17_an_artifact_is_judged_on_its_own_classes_when_asked_to(glyphpress, exported: Path) -> None:
    ran = glyphpress("evaluate", exported, "--data", "builtin:digits")
    assert ran.code == 3
    assert "reads 5 classes, builtin:digits/test has 10; choose the model's classes with --classes 86420" in ran.err
    for words in (SOME, ("--data", "builtin:digits[86420]")):
        ran = glyphpress("evaluate", exported, *words, "--json")
        said = json.loads(ran.out)
        assert (ran.code, said["origin"]) == (0, "builtin:digits[86420]/test")
        assert said["metrics"]["accuracy"] > 0.9
    ran = glyphpress("evaluate", exported, "--data", "builtin:digits", "--classes", "02468", "--json")
    ordered = json.loads(ran.out)
    assert (ran.code, ordered["classes"]) == (0, list("02468"))
    assert ordered["metrics"]["accuracy"] == said["metrics"]["accuracy"]


def test_a_file_that_names_its_columns_in_another_order_is_exported_evaluated_and_pressed(
    glyphpress, bare: Path, tmp_path: Path
) -> None:
    import torch

    path, data = tmp_path / "named.pt", ("--data", "builtin:digits[02468]")
    torch.save({"model": torch.load(bare, weights_only=True), "class_names": list("86420")}, path)
    model = ("--model", "cnn-small")
    ran = glyphpress("export", path, *model, *data, "-o", tmp_path / "named.onnx")
    assert ran.code == 0, ran.err
    assert "its columns are in its own order, not the data's: 86420" in ran.out
    said = json.loads(glyphpress("evaluate", tmp_path / "named.onnx", *data, "--json").out)
    assert said["metrics"]["accuracy"] > 0.9
    words = ("--format", "onnx", "--recipe", "static-int8", "--seconds", "20ms", "--policy", "smoke", "--json")
    ran = glyphpress("press", path, *model, *data, *words, "--out", tmp_path / "out")
    assert ran.code in (0, 1, 5), ran.err
    assert min(row["accuracy"] for row in json.loads(ran.out)["report"]["rows"]) > 0.9
    pair = ("--baseline", tmp_path / "named.onnx", "--candidate", tmp_path / "out" / "named.static-int8.onnx")
    ran = glyphpress("gate", *pair, *data, "--policy", "smoke")
    assert ran.code == 0, ran.err
    ran = glyphpress("prune", path, *model, *data, "--ratio", "12%", "--epochs", 1, "-o", tmp_path / "p.pt2", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["compared"]["accuracy"] > 0.9


def test_row17_evaluations_of_different_choices_are_never_paired(glyphpress, exported: Path, tmp_path: Path) -> None:
    from calibration.load import load
    from toolchain.training.presets import preset
    from toolchain.training.train import train

    odd = tmp_path / "odd.pt"
    train(
        load("builtin:digits[97531]", "train"),
        settings=preset("digits").changed(epochs=1),
        out=odd,
        context=RunContext(threads=1),
    )
    glyphpress("export", odd, "-o", tmp_path / "odd.onnx")
    glyphpress("evaluate", exported, *SOME, "-o", tmp_path / "even.npz")
    glyphpress("evaluate", tmp_path / "odd.onnx", "--data", "builtin:digits[97531]", "-o", tmp_path / "odd.npz")
    for command in (("compare",), ("gate", "--baseline"), ("gate", "--policy", "smoke", "--baseline")):
        candidate = ("--candidate", tmp_path / "odd.npz") if "gate" in command else (tmp_path / "odd.npz",)
        ran = glyphpress(*command, tmp_path / "even.npz", *candidate)
        assert ran.code == 3, ran.out
        assert "were evaluated on other classes" in ran.err
    ran = glyphpress("compare", tmp_path / "even.npz", tmp_path / "even.npz", "--data", "builtin:digits[02468]")
    assert ran.code == 3
    assert "builtin:digits[02468]/test" in ran.err


def test_row17_gate_baseline_quantize_and_leaks_take_the_choice(glyphpress, exported: Path, tmp_path: Path) -> None:
    policy, small = tmp_path / "p.toml", tmp_path / "small.onnx"
    policy.write_text('[drop]\nmax = "20pp"\n[leaks]\nmax = 0\n')
    ran = glyphpress("quantize", exported, *SOME, "--calibration-images", 64, "-o", small)
    assert ran.code == 0, ran.err
    ran = glyphpress("gate", "baseline", exported, *SOME, "-o", tmp_path / "b.npz", "--json")
    assert ran.code == 0, ran.err
    evidence = tmp_path / "e.json"
    judged = ("--baseline", tmp_path / "b.npz", "--candidate", small, "--policy", policy, "--evidence", evidence)
    ran = glyphpress("gate", *judged, *SOME)
    assert ran.code == 0, ran.out + ran.err
    assert json.loads(evidence.read_text())["pairs"]["origin"] == "builtin:digits[86420]/test"
    assert json.loads(evidence.read_text())["leaks"]["train"] == "builtin:digits[86420]/train"
    ran = glyphpress("gate", *judged, "--data", "builtin:digits", "--force")
    assert ran.code == 3


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("evaluate", "{onnx}", "--data", "builtin:digits", "--classes", "8642A"), "has no class 'A'; it has 0-9"),
        (("press", "{pt}", "--data", "builtin:digits", "--classes", "8642A", "--out", "x"), "has no class 'A'"),
        (("evaluate", "{onnx}", "--data", "builtin:digits", "--classes", "0,,1"), "has an empty name"),
        (("export", "{pt}", "--classes", "", "-o", "x.onnx"), "the value of --classes is empty"),
        (("compare", "{onnx}", "{onnx}", "--classes", "02"), "--classes chooses among the images of --data"),
        (("train", "--data", "builtin:digits[00]", "-o", "x.pt"), "names '0' twice"),
        (("data", "check", "builtin:digits", "--classes", "x"), "has no class 'x'"),
    ],
)
def test_row17_a_choice_that_cannot_be_meant(
    command: tuple[str, ...], message: str, glyphpress, even: Path, exported: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = glyphpress(*(word.format(pt=even, onnx=exported) for word in command))
    assert ran.code == 2
    assert message in ran.err.splitlines()[-1]
