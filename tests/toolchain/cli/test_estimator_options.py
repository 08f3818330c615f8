"""Options of scikit-learn's models in `glyphpress train`: settings from TOML, and what is for networks only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def test_settings_from_toml_and_options(glyphpress: Callable, tmp_path: Path) -> None:
    (tmp_path / "svc.toml").write_text("[train]\ngamma = 0.001\nC = 7\n")
    words = ("train", "--model", "svc", "--data", "builtin:digits8x8", "--config", tmp_path / "svc.toml", "--C", 100)
    done = glyphpress(*words, "-o", tmp_path / "svc.onnx", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"] == {"images": 10_000, "gamma": 0.001, "C": 100.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "svc", "--lr", "0.1"), "--lr is for networks, not for svc"),
        (("--model", "svc", "--epochs", "3"), "--epochs is for networks, not for svc"),
        (("--model", "svc", "--folds", "3"), "--folds is for networks, not for svc"),
        (("--model", "svc", "--preset", "digits"), "--preset is for networks, not for svc"),
        (("--model", "svc", "--trees", "3"), "svc has no setting 'trees'; it has images, gamma, C"),
        (("--model", "decision-tree", "--gamma", "1"), "decision-tree has no setting 'gamma'"),
        (("--model", "svc", "--gamma", "0"), "--gamma"),
        (("--gamma", "1"), "--gamma is for svc, not for a network"),
        (("--max-depth", "3"), "--max-depth is for decision-tree or random-forest, not for a network"),
        (("--model", "svm"), "no reference model 'svm'; did you mean svc?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_of_the_other_kind_are_refused(
    words: tuple[str, ...], message: str, glyphpress: Callable, tmp_path: Path
) -> None:
    done = glyphpress("train", *words, "--data", "builtin:digits", "-o", tmp_path / "svc.onnx")
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())


def test_every_command_s_options_are_no_network_s(glyphpress: Callable, tmp_path: Path) -> None:
    words = ("train", "--model", "decision-tree", "--data", "builtin:digits8x8", "-o", tmp_path / "tree.onnx", "-q")
    done = glyphpress(*words)
    assert (done.code, done.err) == (0, "")


def test_a_wrong_key_in_toml_names_the_file(glyphpress: Callable, tmp_path: Path) -> None:
    (tmp_path / "svc.toml").write_text("[train]\nlr = 0.1\n")
    words = ("train", "--model", "svc", "--data", "builtin:digits", "--config", tmp_path / "svc.toml")
    done = glyphpress(*words, "-o", tmp_path / "svc.onnx")
    assert done.code == 2
    assert "svc.toml: [train] svc has no setting 'lr'" in done.err


def test_a_model_that_is_not_there_yet_is_trained_first(glyphpress: Callable, tmp_path: Path) -> None:
    done = glyphpress("press", "svc", "--data", "builtin:digits", "--out", tmp_path / "out")
    assert done.code == 3
    assert "train it: glyphpress train --model svc" in done.err


def test_the_tutorial_s_hypothesis_is_accepted_for_the_svc_and_rejected_for_the_tree(
    glyphpress: Callable, tmp_path: Path
) -> None:
    data = ("--data", "builtin:digits8x8")
    for model, options, verdict in (("svc", ("--gamma", 0.001), "accepted"), ("decision-tree", (), "rejected")):
        path = tmp_path / f"{model}.onnx"
        assert glyphpress("train", "--model", model, *options, *data, "-o", path).code == 0
        done = glyphpress("evaluate", path, *data, "--hypothesis", "95%", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["hypothesis"]["verdict"] == verdict
    assert "is rejected: " in glyphpress("evaluate", path, *data, "--hypothesis", "95%").out
    assert glyphpress("evaluate", path, *data, "--hypothesis", "101%").code == 2
