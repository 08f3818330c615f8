"""Names that are not known, the help of every command, and one spelling of an option everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rich_click as click

from calibration.corrupt import KINDS, check_kind
from calibration.errors import UnknownData
from calibration.spec import SPLITS
from targets import catalog
from targets.errors import UnknownTarget
from targets.profiles import BUDGETS, DeviceProfile, profile_names
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from toolchain.cli.main import COMMANDS
from toolchain.cli.main import glyphpress as program
from toolchain.core.errors import PolicyError
from toolchain.gate.policy import Policy, policy_from
from toolchain.quantize.schemes import SCHEMES
from toolchain.recipe import shipped

Run = Callable[..., Finished]

FAR = "xylophone"


def _commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield (*above, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*above, name))


def _named(text: str, names: list[str]) -> list[str]:
    """Return which of the names a line names."""
    return [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]


@pytest.mark.parametrize("words", [("gate", "init"), ("targets", "setup"), ("profile",), ("help",)])
def test_row39_help_shows_what_the_command_itself_shows(glyphpress: Run, words: tuple[str, ...]) -> None:
    shown, own = glyphpress("help", *words), glyphpress(*words, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.strip() == own.out.strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["help", FAR], "see `glyphpress --help`", id="row39-topic"),
        pytest.param(["help", "gate", "int"], "did you mean init?", id="row39-topic below a group"),
        pytest.param(["help", "compare", "x"], "see `glyphpress compare --help`", id="row39-topic below a command"),
        pytest.param([FAR], "see `glyphpress --help`", id="row39-command"),
        pytest.param(["targets", FAR], "see `glyphpress targets --help`", id="row39-command of a group"),
        pytest.param(["quantize", "a.onnx", "-o", "b.onnx", "--scheme", FAR], "quantize --help`", id="row39-choice"),
        pytest.param(["recipe", "show", FAR], "`glyphpress recipe list` shows", id="row39-recipe"),
        pytest.param(["targets", "show", FAR], "`glyphpress targets list` shows", id="row39-target"),
        pytest.param(["data", "check", "-q", f"emnist:{FAR}"], "`glyphpress data list` shows", id="row39-split"),
    ],
)
def test_an_unknown_name_is_answered_with_three_names_at_most(glyphpress: Run, words: list[str], said: str) -> None:
    done = glyphpress(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    beside = done.err.replace(said, "")
    for names in (
        list(COMMANDS),
        list(SCHEMES),
        list(shipped()),
        [*catalog.names(), *profile_names()],
        list(SPLITS),
    ):
        assert len(set(_named(beside, names)) - {"quantize"}) <= 3


def test_row39_profiles_policies_and_damage_too(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(f'[budgets]\n{FAR} = "5ms"')
    with pytest.raises(UnknownTarget) as budget:
        DeviceProfile.load(str(profile))
    with pytest.raises(UnknownData) as kind:
        check_kind(FAR)
    with pytest.raises(PolicyError) as key:
        policy_from({FAR: {"max": "1pp"}})
    for raised, names in ((budget, list(BUDGETS)), (kind, list(KINDS)), (key, list(Policy.model_fields))):
        assert FAR in str(raised.value)
        assert len(_named(str(raised.value), names)) <= 3


def test_row39_a_file_is_written_by_o_and_output_in_every_command() -> None:
    spelled = {
        words: set(param.opts)
        for words, command in _commands(program)
        for param in command.params
        if {"-o", "--output"} & set(param.opts)
    }
    assert ("evaluate",) in spelled
    assert [words for words, names in spelled.items() if not {"-o", "--output"} <= names] == []
    folders = {
        words
        for words, command in _commands(program)
        for param in command.params
        if "--out" in param.opts and words not in spelled
        if not (isinstance(param.type, click.Path) and param.type.dir_okay and not param.type.file_okay)
    }
    assert folders == set()


def test_row39_evaluate_takes_output(glyphpress: Run, tmp_path: Path) -> None:
    linear_reader(tmp_path / "float.onnx")
    done = glyphpress("evaluate", tmp_path / "float.onnx", "--data", "builtin:digits", "--output", tmp_path / "a.npz")
    assert (done.code, (tmp_path / "a.npz").is_file()) == (0, True), done.err
