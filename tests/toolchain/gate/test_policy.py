"""Policies: units are asked for, unknown keys are answered, nothing is not a policy."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from toolchain.core import quantities
from toolchain.core.errors import PolicyError
from toolchain.gate.collect import check_inputs
from toolchain.gate.policy import choose_policy, default_policy, named, policy_from, read_policy, schema

WHOLE = """
[drop]
max = "0.3pp"
confidence = 0.99
[size]
max = "250KB"
action = "warn"
[shrink]
min = "3.6x"
[p50]
max = "800us"
[p95]
max = "2ms"
[p50_ratio]
max = "0.9x"
[p95_ratio]
max = "1x"
"""


def test_every_limit_is_read_in_base_units(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(WHOLE)
    policy = read_policy(tmp_path / "gate.toml")
    assert policy.drop
    assert policy.size
    assert policy.shrink
    assert policy.p95
    assert policy.p50_ratio
    assert (policy.drop.max, policy.drop.confidence, policy.drop.action) == (pytest.approx(0.003), 0.99, "fail")
    assert (policy.size.max, policy.size.action) == (250_000, "warn")
    assert (policy.shrink.min, policy.p95.max, policy.p50_ratio.max) == (3.6, 0.002, 0.9)
    assert policy_from(policy.to_dict()) == policy


def test_the_default_is_three_tenths_of_a_point_and_asks_for_answers_only() -> None:
    policy = default_policy()
    assert policy.to_dict()["drop"] == {"max": "0.3pp", "confidence": 0.95, "action": "fail"}
    answers = Path("a.npz")
    check_inputs(policy, answers, [answers], images=False, train=False)


def test_each_named_policy_says_for_whom_it_is() -> None:
    assert list(named()) == ["default", "smoke", "strict"]
    for name in named():
        assert (files("toolchain") / "gate" / "shipped" / f"{name}.toml").read_text().startswith("# For ")
    asked = {name for name, _ in named()["strict"].limits()}
    assert asked > {name for name, _ in named()["default"].limits()} > {name for name, _ in named()["smoke"].limits()}


def test_the_schema_takes_what_the_reader_takes() -> None:
    form = Draft202012Validator(schema())
    form.check_schema(schema())
    for words in (WHOLE, '[baseline]\ndigest = "' + "0" * 64 + '"\n[flips]\nmax = " 1 %"'):
        policy_from(tomllib.loads(words))
        assert form.is_valid(tomllib.loads(words))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param('[dorp]\nmax = "1pp"', id="table"),
        pytest.param('[drop]\nmaximum = "1pp"', id="key"),
        pytest.param("[drop]\nmax = 0.3", id="bare number"),
        pytest.param('[drop]\nmax = "0.3"', id="no unit"),
        pytest.param('[drop]\nmax = "3KB"', id="another unit"),
        pytest.param('[drop]\nmax = "1pp"\nconfidence = 1.0', id="certain"),
        pytest.param('[runtimes]\nmax = "1pp"', id="a count with a unit"),
        pytest.param('[stress]\nmax = "1pp"\nstrengths = [6]', id="no such strength"),
        pytest.param('[cost]\nmax = "1pp"\ncosts = { "1->7" = -1 }', id="negative cost"),
        pytest.param('[baseline]\ndigest = "abc"', id="no digest"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(PolicyError):
        policy_from(tomllib.loads(text))
    assert not Draft202012Validator(schema()).is_valid(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"gate\.toml: limits nothing", id="empty"),
        pytest.param('[dorp]\nmax = "1pp"', "unknown key 'dorp'; did you mean drop", id="table"),
        pytest.param('[p95]\nmaximum = "1ms"', "unknown key 'p95.maximum'; did you mean max", id="key"),
        pytest.param(
            '[banana]\nmax = "1ms"', "unknown key 'banana'; see `glyphpress schema policy`", id="nothing near"
        ),
        pytest.param("[drop]\nmax = 0.3", r"'drop.max' cannot be 0.3: .* needs quotes and a unit", id="bare number"),
        pytest.param("[drop]\nmax = true", "'drop.max' cannot be true: true needs quotes and a unit", id="true"),
        pytest.param('[drop]\nmax = "0.3"', "needs a number and a unit", id="no unit"),
        pytest.param('[drop]\nmax = "3KB"', r"needs a number and a unit \(pp, %\)", id="another unit"),
        pytest.param('[drop]\nmax = "0pp"', 'cannot be "0pp": give more than 0pp and less', id="zero margin"),
        pytest.param('[drop]\nmax = "500pp"', 'cannot be "500pp": .* less than 100pp', id="more than all"),
        pytest.param('[drop]\nmax = "1pp"\nconfidence = 1.0', "'drop.confidence' cannot be 1.0", id="certain"),
        pytest.param('[drop]\nmax = "1pp"\nconfidence = nan', "'drop.confidence' cannot be nan", id="nan"),
        pytest.param('[drop]\nmax = "1pp"\naction = "shout"', "'drop.action' cannot be \"shout\"", id="action"),
        pytest.param("[drop]\n", "'drop.max' is missing", id="no value"),
        pytest.param("drop = 3", "'drop' cannot be 3", id="no table"),
        pytest.param('[baseline]\ndigest = "0"', 'cannot be "0": it should be 64 hexadecimal digits$', id="digest"),
        pytest.param('[confusables]\nmax = "1pp"\ngroups = ["0"]', "at least 2 characters$", id="a group of one"),
        pytest.param("[baseline]\nmin_accuracy = 85", 'needs quotes and a unit, such as "85%"$', id="accuracy"),
        pytest.param('[baseline]\nmin_accuracy = "85"', r"a unit \(pp, %\), such as 85%$", id="accuracy, no unit"),
        pytest.param('[shrink]\nmax = "3x"', "unknown key 'shrink.max'; this limit has a min$", id="max for min"),
        pytest.param('[size]\nmin = "3KB"', "unknown key 'size.min'; this limit has a max$", id="min for max"),
        pytest.param("[drop", "not a TOML file", id="no toml"),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_says_so(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(PolicyError, match=message) as raised:
        read_policy(tmp_path / "gate.toml")
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_of_windows_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text('[drop]\nmax = "1pp"\n', encoding="utf-8-sig")
    assert read_policy(tmp_path / "gate.toml") == policy_from({"drop": {"max": "1pp"}})


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml: no such policy file"):
        read_policy(tmp_path / "none.toml")


def test_options_replace_the_limit_of_the_same_kind_and_keep_the_rest(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(WHOLE)
    policy = choose_policy(tmp_path / "gate.toml", drop=0.01, p95=None, size=1000.0)
    assert policy.drop
    assert policy.size
    assert policy.p95
    assert (policy.drop.max, policy.drop.confidence) == (0.01, 0.99)
    assert (policy.size.max, policy.size.action, policy.p95.max) == (1000.0, "warn", 0.002)


def test_a_limit_on_size_alone_still_asks_for_the_accuracy() -> None:
    policy = choose_policy(None, size=1000.0)
    assert policy.drop == default_policy().drop
    with pytest.raises(PolicyError, match=r"'drop\.max' cannot be nan"):
        choose_policy(None, drop=float("nan"))
    assert choose_policy(drop="1pp") == choose_policy(drop=0.01)
    for name, advice in (("max_drop", "did you mean drop"), ("baseline", "there are drop, classes, ")):
        with pytest.raises(PolicyError, match=f"^no limit '{name}'; {advice}"):
            choose_policy(**{name: 0.01})


@given(
    st.sampled_from([quantities.SIZE, quantities.DURATION, quantities.POINTS, quantities.RATIO]),
    st.floats(1e-6, 1e6),
)
def test_a_written_quantity_is_read_back(unit: quantities.Unit, value: float) -> None:
    assert unit.parse(unit.text(value)) == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (quantities.size_text(163_400), "163 KB"),
        (quantities.size_text(4_096), "4.1 KB"),
        (quantities.size_text(12_300_000), "12.3 MB"),
        (quantities.time_text(67.24e-6), "67.2 us"),
        (quantities.time_text(104.4e-6), "104 us"),
        (quantities.time_text(999.9e-6), "1.00 ms"),
        (quantities.time_text(2.5), "2.50 s"),
        (quantities.percent_text(0.88462), "88.46 %"),
        (quantities.points_text(-1e-9), "0.00"),
    ],
)
def test_quantities_for_people(text: str, expected: str) -> None:
    assert text == expected
