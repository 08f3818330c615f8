"""scikit-learn's models as .onnx files: they answer as scikit-learn does, press, are judged, and refuse the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.load import load
from toolchain import models
from toolchain.core.context import RunContext
from toolchain.core.errors import PackageMissing, UsageProblem
from toolchain.formats.onnx.inspection import inspect_onnx
from toolchain.training.estimators import FittedEstimator, fit_estimator

FEW = {"svc": {"C": 10.0}, "decision-tree": {}, "random-forest": {"trees": 5}}
MODELS = pytest.mark.parametrize("model", models.ESTIMATORS)


def fitted(model: str, out: Path, spec: str = "builtin:digits", seed: int = 0, **settings: object) -> FittedEstimator:
    return fit_estimator(
        load(spec, "train"),
        model=model,
        settings=models.estimator_class(model).of(model, FEW[model] | settings),
        test=load(spec),
        out=out,
        context=RunContext(seed=seed, threads=1),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FittedEstimator]:
    folder = tmp_path_factory.mktemp("estimators")
    return {model: fitted(model, folder / f"{model}.onnx") for model in models.ESTIMATORS}


@MODELS
def test_it_answers_as_scikit_learn_on_every_test_image(model: str, files: dict[str, FittedEstimator]) -> None:
    test = files[model].facts["test"]
    assert (test["compared"], test["differing"]) == (599, 0)
    assert test["accuracy"] > 0.8


@MODELS
def test_the_same_seed_gives_the_same_bytes(model: str, files: dict[str, FittedEstimator], tmp_path: Path) -> None:
    again = fitted(model, tmp_path / f"{model}.onnx")
    assert again.out.read_bytes() == files[model].out.read_bytes()


def test_a_forest_of_another_seed_is_another_one(files: dict[str, FittedEstimator], tmp_path: Path) -> None:
    other = fitted("random-forest", tmp_path / "other.onnx", seed=1)
    assert other.out.read_bytes() != files["random-forest"].out.read_bytes()


@pytest.mark.parametrize(("cost", "right"), [(1.0, 871), (100.0, 872)])
def test_the_tutorials_split_and_pixels_give_what_scikit_learn_gives(cost: float, right: int, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    rows, labels = load_digits(return_X_y=True)
    parts = train_test_split(rows, labels, test_size=0.5, shuffle=False)
    expected = int((SVC(gamma=0.001, C=cost).fit(parts[0], parts[2]).predict(parts[1]) == parts[3]).sum())
    file = fitted("svc", tmp_path / "svc.onnx", "builtin:digits8x8", gamma=0.001, C=cost)
    assert file.facts["test"]["right"] == expected == right


def test_ties_of_votes_go_to_the_class_that_predict_answers(tmp_path: Path) -> None:
    # With so few images and a wide kernel, many votes are equal.
    file = fitted("svc", tmp_path / "svc.onnx", "builtin:digits8x8", images=30, gamma=1e-5, C=1.0)
    assert file.facts["test"]["differing"] == 0


def test_two_classes(tmp_path: Path) -> None:
    test = fitted("svc", tmp_path / "svc.onnx", "builtin:digits[01]").facts["test"]
    assert test["differing"] == 0
    assert test["accuracy"] > 0.95


def test_fewer_images_keep_each_class_s_share_and_that_is_said(tmp_path: Path) -> None:
    file = fitted("decision-tree", tmp_path / "tree.onnx", images=600)
    assert 590 < file.facts["data"]["fitted"] <= 600
    assert "of 1,198 training images, each class with its share" in file.notes[0]


@MODELS
def test_it_is_pressed_and_judged(
    model: str, files: dict[str, FittedEstimator], glyphpress: Callable, tmp_path: Path
) -> None:
    path, out, limits = files[model].out, tmp_path / "out", tmp_path / "limits.toml"
    data = ("--data", "builtin:digits")
    done = glyphpress("press", path, *data, "--seconds", "0.1s", "--out", out, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["report"]
    assert [row["format"] for row in report["rows"]] == ["onnx"]
    assert any("static-int8, .tflite left out" in note for note in report["notes"])
    limits.write_text('[drop]\nmax = "2pp"\nconfidence = 0.95\n')
    pressed = out / f"{model}.float.onnx"
    done = glyphpress("gate", "--baseline", path, "--candidate", pressed, *data, "--policy", limits)
    assert done.code == 0, done.err
    assert "0 answers changed" in done.out
    assert inspect_onnx(pressed).macs == inspect_onnx(path).macs == report["checkpoint"]["macs"]


def test_the_gate_fails_a_stump_of_a_tree(
    files: dict[str, FittedEstimator], glyphpress: Callable, tmp_path: Path
) -> None:
    stump = fitted("decision-tree", tmp_path / "stump.onnx", max_depth=2)
    tree = files["decision-tree"].out
    done = glyphpress("gate", "--baseline", tree, "--candidate", stump.out, "--data", "builtin:digits")
    assert done.code == 1, done.err


@pytest.mark.parametrize(
    "words",
    [
        ("press", "FILE", "--recipe", "float16", "--format", "onnx", "--data", "builtin:digits", "--out", "OUT"),
        ("press", "FILE", "--recipe", "pruned-static-int8", "--data", "builtin:digits", "--out", "OUT"),
        ("press", "FILE", "--format", "tflite", "--data", "builtin:digits", "--out", "OUT"),
        ("quantize", "FILE", "--scheme", "static-int8", "--data", "builtin:digits", "-o", "OUT.onnx"),
        ("quantize", "FILE", "--scheme", "weight-int8", "-o", "OUT.onnx"),
        ("export", "FILE", "-o", "OUT.tflite"),
    ],
    ids=lambda words: " ".join(words[:1] + words[2:4]),
)
def test_what_needs_layers_is_refused_with_the_reason(
    words: tuple[str, ...], files: dict[str, FittedEstimator], glyphpress: Callable, tmp_path: Path
) -> None:
    places = {"FILE": str(files["svc"].out), "OUT": str(tmp_path / "out")}
    typed = [places.get(word, word.replace("OUT", places["OUT"])) for word in words]
    done = glyphpress(*typed, *(["--seconds", "0.1s"] if words[0] == "press" else []))
    assert done.code == 3
    assert "it is a support vector machine, which has no layers" in done.out + done.err


@pytest.mark.parametrize(
    ("model", "contents"),
    [("svc", "support vectors of 784 numbers"), ("decision-tree", "1 tree, "), ("random-forest", "5 trees, ")],
)
def test_inspect_says_what_it_holds(
    model: str, contents: str, files: dict[str, FittedEstimator], glyphpress: Callable
) -> None:
    done = glyphpress("inspect", files[model].out)
    assert done.code == 0, done.err
    assert contents in done.out


def test_only_onnx_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"should end in \.onnx"):
        fitted("svc", tmp_path / "svc.pt")
    assert not list(tmp_path.iterdir())


def test_without_skl2onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.core.packages.find_spec", lambda _name: None)
    with pytest.raises(PackageMissing, match=r"glyphpress\[sklearn\]"):
        fitted("svc", tmp_path / "svc.onnx")


def test_probabilities_sum_to_one(files: dict[str, FittedEstimator]) -> None:
    from targets import catalog
    from targets.metadata import load_artifact

    with catalog.default_for("onnx").open(load_artifact(files["random-forest"].out)) as session:
        rows = session.run(load("builtin:digits").images[:50])
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert rows.min() >= 0
