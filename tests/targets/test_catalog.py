"""The catalog of targets: names, nearest names, and device profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from targets import catalog
from targets.arm64 import PROCESSORS
from targets.errors import TargetUnavailable, UnknownTarget
from targets.host.machine import ISA_FLAGS
from targets.profiles import SHIPPED, DeviceProfile, profile_names


@pytest.mark.parametrize("name", catalog.names())
def test_every_name_leads_to_the_target_that_bears_it(name: str) -> None:
    assert catalog.get(name).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownTarget, match=r"did you mean litert-cpu, [^,]+, [^,]+\?$"):
        catalog.get("litert-cpuu")


def test_a_name_given_twice_raises() -> None:
    with pytest.raises(ValueError, match="twice: a:A and b:B"):
        catalog.table([("x", "a:A"), ("x", "b:B")])


def test_the_format_decides_where_nothing_is_named() -> None:
    assert catalog.default_for("onnx").name == "ort-cpu"
    assert catalog.default_for("tflite").name == "litert-cpu"


@pytest.fixture
def user_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLYPHPRESS_TARGETS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_shipped_profiles_are_whole(name: str) -> None:
    profile = DeviceProfile.load(name)
    assert profile.name == name
    assert profile.summary
    assert profile.cpu
    assert profile.budgets
    assert set(profile.features) <= set(ISA_FLAGS)
    assert profile.reach or profile.emulate.partition(":")[2] in PROCESSORS


def test_a_board_without_a_host_says_what_to_do() -> None:
    with pytest.raises(TargetUnavailable, match=r"take ssh://USER@HOST, or its emulator arm64:cortex-a72"):
        catalog.get("raspberry-pi-4")


def test_a_users_own_profile_extends_a_shipped_one_and_comes_first(user_profiles: Path) -> None:
    (user_profiles / "kitchen.toml").write_text(
        'extends = "raspberry-pi-4"\nreach = "arm64:cortex-a72"\n[budgets]\nsize = "200KB"\n'
    )
    (user_profiles / "kiosk-x86.toml").write_text('summary = "mine"\nreach = "ort-cpu,graph=basic"\n')
    kitchen, shipped = DeviceProfile.load("kitchen"), DeviceProfile.load("raspberry-pi-4")
    assert (kitchen.cpu, kitchen.features) == (shipped.cpu, shipped.features)
    assert kitchen.budgets == shipped.budgets | {"size": "200KB"}
    assert catalog.get("kitchen").name == "arm64:cortex-a72"
    assert catalog.get(str(user_profiles / "kitchen.toml")).name == "arm64:cortex-a72"
    assert DeviceProfile.load("kiosk-x86").summary == "mine"
    assert {"kitchen", "raspberry-pi-5"} <= set(profile_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('reech = "ort-cpu"', "no key 'reech'; did you mean reach"),
        ('threads = "4"', 'threads must be a whole number, not "4"'),
        ("threads = true", "threads must be a whole number, not "),
        ("threads = -3", "mine.toml: threads is -3, not 0"),
        ("threads = 99999999999999999999", "mine.toml: threads is 9999"),
        ("threads = inf", "threads must be a whole number, not "),
        (f"threads = {'9' * 5000}", "mine.toml: not a device profile"),
        ('[budgets]\nsize = "-1MB"', "mine.toml: the budget size is '-1MB', not a number"),
        ('[budgets]\np95 = "1e400ms"', "mine.toml: the budget p95 is '1e400ms', not a number"),
        ('[budgets]\nmemory = "nan"', "mine.toml: the budget memory is 'nan', not a number"),
        ('zzz = "4"', "no key 'zzz'; `glyphpress targets show"),
        ('extends = "raspberry-pi-4"\nbudgets = 4', "budgets must be a table of texts"),
        ('features = "asimd"', "features must be a list of texts"),
        ("[budgets]\nsize = 5", "budgets must be a table of texts"),
        ('[budgets]\nspeed = "5ms"', "no budget 'speed'; `glyphpress targets show"),
        ("reach = ", "not a device profile"),
        ('extends = "nothing"', "no device profile 'nothing'; `glyphpress targets list"),
        ('extends = "mine"', "extends is not the name of another profile"),
        ("extends = 4", "extends is not the name of another profile"),
    ],
)
def test_mistakes_are_told_by_file_and_key(user_profiles: Path, text: str, message: str) -> None:
    (user_profiles / "mine.toml").write_text(text)
    with pytest.raises(UnknownTarget, match=message) as caught:
        DeviceProfile.load("mine")
    assert "\n" not in str(caught.value)


def test_a_reach_that_leads_back_to_itself_is_refused(user_profiles: Path) -> None:
    (user_profiles / "here.toml").write_text('reach = "there"')
    (user_profiles / "there.toml").write_text('reach = "here"')
    with pytest.raises(UnknownTarget, match=r"refers back to itself \(here to there to here\)"):
        catalog.get("here")
    (user_profiles / "there.toml").write_text('reach = "ort-cpu"')
    assert catalog.get("here").name == "ort-cpu"


def test_an_unknown_word_is_answered_with_profiles_too() -> None:
    with pytest.raises(UnknownTarget, match=r"did you mean raspberry-pi-4\b"):
        catalog.get("raspberry-pi4")
