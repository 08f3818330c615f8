"""Plug-ins that are late, broken, of another kind, or called as something else is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glyphpress import registry
from glyphpress.registry import NO_PLUGINS, PluginFailed
from targets import catalog
from targets.errors import UnknownTarget
from tests.conftest import Finished
from tests.fixtures.plugin_packages import on_path, package
from tests.fixtures.small_readers import linear_reader
from toolchain import recipe

Run = Callable[..., Finished]
TARGET = """
from targets.null import NullTarget

class Late(NullTarget):
    name = "late"
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told of plug-ins that nobody asked for."""
    lines: list[str] = []
    monkeypatch.setattr(registry, "_tell", lines.append)
    monkeypatch.setattr(registry, "_told", set[str]())
    return lines


@pytest.fixture
def site(tmp_path: Path, told: list[str]) -> Iterator[Path]:
    """A folder on the path, for packages that a test writes before it asks for their names."""
    with on_path(tmp_path):
        yield tmp_path


def test_a_plug_in_is_imported_when_its_name_is_used_and_not_before(site: Path) -> None:
    package(site, "late-package", {"targets": {"late": "late_module:Late"}}, late_module=TARGET)
    assert "late" in catalog.names()
    with pytest.raises(UnknownTarget, match="did you mean late"):
        catalog.get("latte")
    assert "late_module" not in sys.modules
    assert registry.loaded() == ()
    assert catalog.get("late").name == "late"
    assert [str(plugin) for plugin in registry.loaded()] == ["target late of late-package 1.0"]


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("absent", None, "ModuleNotFoundError: No module named 'absent_module'"),
        ("raising", "1 / 0", "ZeroDivisionError: division by zero"),
        ("leaving", "raise SystemExit(0)", "SystemExit: 0"),
        ("nameless", "", "AttributeError: module 'nameless_module' has no attribute 'IT'"),
        ("other", "IT = 7", "TypeError: it gives a int, and a Recipe is needed"),
        ("renamed", "from toolchain.recipe import find\nIT = find('float')", "ValueError: it is called 'float'"),
    ],
)
def test_one_that_does_not_load_is_an_error_only_where_it_is_asked_for(
    site: Path, told: list[str], name: str, source: str | None, reason: str
) -> None:
    modules = {} if source is None else {f"{name}_module": source}
    package(site, f"{name}-package", {"recipes": {name: f"{name}_module:IT"}}, **modules)
    assert set(recipe.REGISTRY.all()) == set(recipe.shipped())
    assert told[0].startswith(f"the recipe {name} of {name}-package 1.0 could not be loaded ({reason}")
    assert set(recipe.REGISTRY.all()) == set(recipe.shipped())
    assert len(told) == 1
    with pytest.raises(PluginFailed, match=f"repair or uninstall {name}-package"):
        recipe.find(name)


def test_the_program_names_a_broken_one_and_goes_on(site: Path, glyphpress: Run) -> None:
    package(site, "broken-package", {"recipes": {"broken": "broken_module:IT"}})
    listed = glyphpress("recipe", "list")
    assert (listed.code, listed.err.count("\n")) == (0, 1)
    assert "recipe broken of broken-package 1.0 could not be loaded" in listed.err
    asked = glyphpress("recipe", "show", "broken")
    assert (asked.code, asked.out, asked.err.count("\n")) == (4, "", 1)
    assert "recipe broken of broken-package 1.0 could not be loaded" in asked.err


def test_no_plug_in_takes_the_place_of_what_is_built_in(site: Path, told: list[str]) -> None:
    names = {"ort-cpu": "late_module:Late", "ssh": "late_module:Late", "raspberry-pi-4": "late_module:Late"}
    package(site, "greedy", {"targets": names}, late_module="raise AssertionError")
    assert catalog.names() == list(catalog.TARGETS)
    assert catalog.get("ort-cpu").name == "ort-cpu"
    assert told[0] == (
        "the target ort-cpu of greedy 1.0 is not used: glyphpress has a target of that name "
        "(targets.onnxruntime.cpu:OrtCpu)"
    )
    assert len(told) == 3


def test_no_format_takes_the_suffix_of_checkpoints_or_results(site: Path, glyphpress: Run) -> None:
    package(site, "grasping", {"formats": {"pt": "late_module:Late"}, "limit": {"odd": "late_module:Late"}})
    (site / "model.pt").write_text("no checkpoint")
    inspected = glyphpress("inspect", site / "model.pt")
    assert (inspected.code, "is no model file" in inspected.err) == (3, True)
    rows = {row["name"]: row for row in json.loads(glyphpress("plugins", "--json").out)["plugins"]}
    assert (rows["pt"]["state"], rows["odd"]["state"]) == ("refused", "refused")
    assert "there is no group glyphpress.limit, only glyphpress.targets" in rows["odd"]["reason"]


def test_a_damaged_package_is_told_and_left_out(site: Path, told: list[str]) -> None:
    package(site, "damaged", {"targets": {"late": "late_module:Late"}})
    (site / "damaged-1.0.dist-info" / "METADATA").write_text("")
    assert catalog.names() == list(catalog.TARGETS)
    assert len(told) == 1
    assert told[0].startswith("the plug-ins of a package are not used: its metadata cannot be read")


def test_of_two_with_one_name_none_is_taken(site: Path, told: list[str]) -> None:
    for name in ("first", "second"):
        package(site, name, {"recipes": {"twin": f"{name}_module:IT"}})
    with pytest.raises(PluginFailed, match=r"twin of first 1\.0 is not used: second 1\.0 has a recipe of that name"):
        recipe.find("twin")
    assert "twin" not in recipe.REGISTRY
    assert len(told) == 2


@pytest.mark.parametrize(("value", "on"), [("", True), ("0", True), ("1", False), ("false", False), ("yes", False)])
def test_any_word_but_0_turns_them_off(site: Path, monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    package(site, "late-package", {"targets": {"late": "late_module:Late"}})
    monkeypatch.setenv(NO_PLUGINS, value)
    assert ("late" in catalog.names()) is on
    if not on:
        with pytest.raises(PluginFailed, match=rf"turned off \({NO_PLUGINS}, --no-plugins\)"):
            catalog.get("late")


def test_a_crash_in_a_plug_in_is_not_ours(site: Path, glyphpress: Run, tmp_path: Path) -> None:
    source = "def read(path):\n    return path.nothing\n"
    package(site, "crashing", {"readers": {"crash": "crash_module:read"}}, crash_module=source)
    (tmp_path / "a.crash").write_text("1,2")
    done = glyphpress("data", "check", tmp_path / "a.crash")
    assert done.code == 70
    assert "this is a bug in the reader crash of crashing 1.0, or in glyphpress below it" in done.err


def test_what_a_reader_gives_is_checked(site: Path, glyphpress: Run, tmp_path: Path) -> None:
    source = "def read(path):\n    return 7\n"
    package(site, "seven", {"readers": {"seven": "seven_module:read"}}, seven_module=source)
    (tmp_path / "a.seven").write_text("1,2")
    done = glyphpress("data", "check", "-q", tmp_path / "a.seven")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "the reader seven of seven 1.0 gives no Stored of uint8 images" in done.err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("evidence=('packed',)", "no packed is collected for it"),
        ("always=True", "only a policy asks for a limit of a plug-in"),
        ("collect=len, evidence=('pairs',)", "its evidence must begin with"),
    ],
)
def test_a_limit_that_no_gate_could_judge_is_refused(site: Path, change: str, reason: str) -> None:
    from toolchain.gate.policy import policy_from

    name = f"odd_{len(change)}"
    source = (
        "from glyphpress.plugins import LimitDefinition, MarginLimit\n"
        f"IT = LimitDefinition(name='{name}', settings=MarginLimit, about='', example={{}}, judge=len, {change})\n"
    )
    package(site, name, {"limits": {name: f"{name}_module:IT"}}, **{f"{name}_module": source})
    with pytest.raises(PluginFailed, match=reason):
        policy_from({name: {"max": "1pp"}})


@pytest.mark.parametrize(
    ("name", "gives", "reason"),
    [
        ("nothing", "None", "gives no Verdict (None)"),
        ("word", "Verdict('{name}', 'PASS', limit.action, limit.max, 0.0, None, '')", "gives no Verdict (Verdict("),
        ("nan", "Verdict('{name}', Outcome.PASS, limit.action, limit.max, float('nan'), None, '')", "measured nan"),
        ("foreign", "Verdict('drop', Outcome.PASS, limit.action, limit.max, 0.0, None, '')", "judged [drop]"),
        (
            "milder",
            "Verdict('{name}', Outcome.FAIL, 'warn', limit.max, 0.0, None, '')",
            "judged [milder] with the action warn",
        ),
    ],
)
def test_a_plug_in_that_gives_no_verdict_passes_nothing(
    *, site: Path, glyphpress: Run, tmp_path: Path, name: str, gives: str, reason: str
) -> None:
    source = (
        "from glyphpress.plugins import LimitDefinition, MarginLimit, Outcome, Verdict\n"
        f"def judge(limit, pairs):\n    return {gives.format(name=name)}\n"
        f"IT = LimitDefinition(name='{name}', settings=MarginLimit, about='', example={{}}, judge=judge)\n"
    )
    package(site, name, {"limits": {name: f"{name}_module:IT"}}, **{f"{name}_module": source})
    for file, step in (("a.onnx", 0.0), ("b.onnx", 1e-4)):
        linear_reader(tmp_path / file, step=step)
    policy = tmp_path / "gate.toml"
    policy.write_text(f'[{name}]\nmax = "1pp"\n')
    words = ("--baseline", tmp_path / "a.onnx", "--candidate", tmp_path / "b.onnx", "--data", "builtin:digits")
    done = glyphpress("gate", *words, "--policy", policy, "-q")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1), done.err
    assert f"the limit {name} of {name} 1.0 {reason}" in done.err
