"""The settings of `glyphpress train`: a preset, a file, and options that replace single values of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.training.presets import names
from toolchain.training.settings import SETTINGS

TRAIN = ("train", "--data", "builtin:digits")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[train]\noptimizer = "sgd"\nschedule = "cosine"\nepochs = 9\nbatch = 200\nsampling = "balanced"\n')
    return path


def test_a_file_and_options_set_up_a_training_that_says_what_it_does(
    glyphpress: Callable, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.pt"
    words = ("--epochs", 1, "--mixup", 0.2, "--elastic", 20, "--held-out", 0, "--shear", 0, "--json")
    done = glyphpress(*TRAIN, "-o", out, "--config", config, *words)
    assert done.code == 0, done.err
    first = done.err.splitlines()[0]
    facts = json.loads(done.out)
    assert first == (
        "cnn-small on 1,198 images: sgd at 0.05 cosine, batch 200, 1 epoch, balanced sampling, mixup 0.2; "
        "augmentation: rotation 12, zoom 0.13, shift 0.065, elastic 20; "
        f"computed on {facts['device']}"
    )
    settings = facts["settings"]
    given = {"optimizer": "sgd", "momentum": 0.9, "epochs": 1, "mixup": 0.2, "elastic": 20, "shear": 0, "balance": 0}
    assert settings.items() >= given.items()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--schedule", "cosin"), "'cosin' is not known; did you mean cosine?"),
        (("--preset", "emnits"), "no training preset 'emnits'; did you mean emnist?"),
        (
            ("--patience", 3, "--held-out", 0),
            "--patience 3 needs the accuracy on held-out images; give --held-out above 0, such as 0.1, or --patience 0",
        ),
        (("--class-weights", "--sampling", "balanced"), "--class-weights and --sampling balanced would correct twice"),
        (("--class-weights", "--balance", 1), "--class-weights and --balance 1 would correct twice"),
        (("--step-epochs", 3), "--step-epochs belongs to --schedule step"),
        (("--config", "missing.toml"), "missing.toml: no such file"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_get_one_line(
    glyphpress: Callable, tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    done = glyphpress(*TRAIN, "-o", tmp_path / "m.pt", *words)
    assert done.code == 2
    assert problem in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "m.pt").exists()


def test_a_wrong_key_of_a_file_is_named_as_it_stands_there(glyphpress: Callable, config: Path, tmp_path: Path) -> None:
    config.write_text("[train]\nweight_decya = 0.1\n")
    done = glyphpress(*TRAIN, "-o", tmp_path / "m.pt", "--config", config)
    assert done.code == 2
    assert f"{config}: [train] unknown setting weight_decya; did you mean weight_decay?" in done.err


def test_a_file_and_a_preset_exclude_each_other(glyphpress: Callable, config: Path, tmp_path: Path) -> None:
    done = glyphpress(*TRAIN, "-o", tmp_path / "m.pt", "--config", config, "--preset", "emnist")
    assert done.code == 2
    assert "--preset and --config exclude each other" in done.err


def test_help_groups_an_option_for_every_setting(glyphpress: Callable) -> None:
    text = glyphpress("train", "--help").out
    for name in SETTINGS:
        assert re.search(rf"^  --{name.replace('_', '-')} ", text, re.MULTILINE), name
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles[:2] == ["Images", "Options"], "the data must be given"
    assert set(titles) >= {setting.panel for setting in SETTINGS.values()}
    assert all(name in text for name in names())
