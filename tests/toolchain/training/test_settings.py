"""Settings of a training: every impossible value is one line, and nothing that is asked for goes unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.core.errors import PolicyError, UsageProblem
from toolchain.core.json_codec import from_json
from toolchain.training.presets import names, parse, preset, preset_for, read
from toolchain.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"epochs": 0}, "`epochs` cannot be 0; give a whole number from 1"),
        ({"epochs": 2.5}, "`epochs` cannot be 2.5; give a whole number"),
        ({"epochs": True}, "`epochs` cannot be true; give a whole number"),
        ({"batch": 1}, "`batch`"),
        ({"lr": 0.0}, "`lr` cannot be 0.0; give above 0 to 1"),
        ({"lr": float("nan")}, "`lr`"),
        ({"lr": "fast"}, '`lr` cannot be "fast"'),
        ({"ema": 1.0}, "`ema` cannot be 1.0; give from 0 to below 1"),
        ({"held_out": 0.9}, "`held_out`"),
        ({"augment": -1}, "`augment`"),
        ({"class_weights": 1}, "`class_weights` cannot be 1; give true or false"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"optimizer": "lion"}, "adamw, adam, sgd or rmsprop"),
        ({"epohs": 3}, "unknown setting `epohs`; did you mean epochs"),
        (
            {"sampling": "balanced", "class_weights": True},
            "`class_weights` and `sampling` balanced would correct",
        ),
        ({"sampling": "balanced", "balance": 0.5}, "`sampling` balanced and `balance` 0.5 would correct twice"),
        ({"momentum": 0.9}, "`momentum` belongs to sgd and rmsprop"),
        (
            {"patience": 3, "held_out": 0},
            "`patience` 3 needs the accuracy on held-out images; give `held_out` above 0, such as 0.1, or `patience` 0",
        ),
        (
            {"schedule": "plateau", "held_out": 0},
            "`schedule` plateau needs the accuracy on held-out images; give `held_out` above 0, such as 0.1, or",
        ),
        ({"step_epochs": 3}, "`step_epochs` belongs to `schedule` step, not to one-cycle"),
        ({"elastic_sigma": 3}, "`elastic_sigma` needs `elastic`"),
        ({"augment": 0, "rotation": 5}, "`rotation` has no effect with `augment` 0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        TrainSettings().changed(**values)
    assert problem in str(refused.value)


def test_another_optimizer_brings_its_usual_values_where_none_are_given() -> None:
    preset_values = TrainSettings(lr=3e-3, weight_decay=0.1)
    assert preset_values.changed(optimizer="adamw") == preset_values
    sgd = preset_values.changed(optimizer="sgd", lr=0.2)
    assert (sgd.lr, sgd.momentum, sgd.weight_decay) == (0.2, 0.9, 5e-4)
    assert sgd.changed(optimizer="adam").momentum == 0


def test_class_weights_replace_the_adjustment_of_logits() -> None:
    assert TrainSettings().changed(class_weights=True).balance == 0
    assert TrainSettings().changed(sampling="balanced").balance == 0


def test_the_description_says_every_setting_that_is_not_a_later_default() -> None:
    plain = TrainSettings(lr=1e-3)
    assert "schedule" not in plain.to_dict()
    changed = plain.changed(schedule="cosine", patience=4, mixup=0.2)
    assert changed.to_dict() == plain.to_dict() | {"schedule": "cosine", "mixup": 0.2, "patience": 4}
    for settings in (plain, changed):
        assert TrainSettings(**settings.to_dict()) == settings
    assert from_json(TrainSettings, '{"epochs": 3}', whole=False) == TrainSettings(epochs=3)


def test_presets_are_found_by_name_model_and_number_of_images() -> None:
    assert preset_for(1_198) == preset("digits")
    assert preset_for(74_851, "no-preset-of-its-own") == preset("emnist") == TrainSettings()
    assert preset_for(74_851, "fine-tune") == preset("fine-tune")
    with pytest.raises(UsageProblem, match="did you mean emnist"):
        preset("emnits")


@pytest.mark.parametrize("name", names())
def test_every_preset_can_be_read_and_summed_up(name: str) -> None:
    assert preset(name).optimizer in preset(name).summary()


def test_a_file_of_settings_is_read_like_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[train]\noptimizer = "sgd"\nepochs = 3\nclass_weights = true\n')
    assert read(path) == TrainSettings().changed(optimizer="sgd", epochs=3, class_weights=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[train]\nschedule = "cosin"', 'mine.toml: [train] schedule cannot be "cosin"; did you mean cosine?'),
        ("[train]\nepoch = 3", "unknown setting epoch; did you mean epochs"),
        ('[train]\nepochs = "3"', 'epochs cannot be "3"; give a whole number'),
        ("[train]\nepochs = 1e9", "epochs cannot be 1000000000.0"),
        ("[train]\nlr = [1]", "lr cannot be [1]"),
        ("[train]\nlr = inf", "lr cannot be inf"),
        ("[train]\nlr = [true, 'a']", 'lr cannot be [true, "a"]'),
        ("[train]\nlr = 2020-01-31", 'lr cannot be "2020-01-31"'),
        ("[train]\nschedule = {}", "schedule cannot be {}"),
        ("epochs = 3", "unknown key 'epochs'; settings stand in a table [train]"),
        ("", "it has no table [train]"),
        ("train = 3", "it has no table [train]"),
        ("[train", "not TOML"),
    ],
    ids=str,
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse(text, "mine.toml")
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)
