"""`gate init`: a commented policy that reads back as it was and fits its schema, and ready CI files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.conftest import Finished
from toolchain import ci
from toolchain.ci import SERVICES, Job, ci_text
from toolchain.ci.source import read_source
from toolchain.gate.policy import (
    Policy,
    choose_policy,
    default_policy,
    named,
    policy_from,
    read_policy,
    schema,
    template,
)

Run = Callable[..., Finished]
GIT = "git+https://git.example.org/them/glyphpress@v0.2.0"
OWN = """
[cost]
max = "0.5pp"
costs = { "1->7" = 20, 'O->"' = 0 }
[confusables]
max = "1pp"
groups = ["0O", 'l"']
margins = { "0O" = "2pp" }
[stress]
max = "1pp"
kinds = ["blur"]
action = "warn"
[memory]
max = "16MiB"
[p95]
max = "800us"
confidence = 0.999
[baseline]
digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"""


@pytest.mark.parametrize(
    "policy", [*named().values(), policy_from(tomllib.loads(OWN))], ids=[*named(), "one of every kind of value"]
)
def test_a_written_policy_reads_back_as_the_same_and_fits_the_schema(policy: Policy) -> None:
    tables = tomllib.loads(template(policy))
    assert policy_from(tables) == policy
    Draft202012Validator(schema()).validate(tables)


WHOLE = tomllib.loads(re.sub(r"^#(?=\S)", "", template(default_policy()), flags=re.MULTILINE))


@given(st.sets(st.sampled_from(sorted(WHOLE.keys() - {"drop"}))))
def test_any_choice_of_tables_reads_back(chosen: set[str]) -> None:
    policy = policy_from({name: WHOLE[name] for name in WHOLE if name in {"drop", *chosen}})
    text = template(policy)
    assert policy_from(tomllib.loads(text)) == policy
    assert template(policy_from(tomllib.loads(text))) == text


def test_every_table_is_there_and_each_can_be_set_by_taking_its_mark_off() -> None:
    text = template(default_policy())
    assert list(WHOLE) == list(Policy.model_fields)
    assert policy_from(WHOLE).drop == default_policy().drop
    Draft202012Validator(schema()).validate(WHOLE)
    for name in Policy.model_fields:
        assert re.search(rf"^# [A-Z].*\.\n#?\[{name}\]$", text, re.MULTILINE), f"[{name}] is not explained"


def test_init_writes_a_policy_once(glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert glyphpress("gate", "init").out == "wrote gate.toml\n"
    assert read_policy(Path("gate.toml")) == default_policy()
    Path("gate.toml").write_text("mine")
    again = glyphpress("gate", "init", "--policy", "smoke")
    assert (again.code, again.out) == (2, "")
    assert "--force" in again.err
    assert Path("gate.toml").read_text() == "mine"
    assert glyphpress("gate", "init", "--policy", "smoke", "--force").code == 0
    assert read_policy(Path("gate.toml")) == choose_policy("smoke")
    assert glyphpress("gate", "init", "--policy", "gate.toml", "-o", "sub/other.toml").code == 0
    assert "--policy other.toml" in Path("sub/other.toml").read_text()
    assert read_policy(Path("sub/other.toml")) == choose_policy("smoke")


@pytest.mark.parametrize("service", SERVICES)
def test_init_writes_the_ci_file_where_the_service_looks(
    service: str, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = SERVICES[service][1]
    words = ("gate", "init", "--ci", service, "--install", GIT)
    done = glyphpress(*words)
    assert done.out == f"wrote {place}\n"
    assert "gate.toml, which is not here yet" in done.err
    assert place.read_text() == ci_text(service, Job(read_source(GIT)))
    assert glyphpress(*words).code == 2
    assert glyphpress(*words, "-o", "my.yml", "--candidate", "a.onnx", "--data", "emnist:balanced").code == 0
    assert Path("my.yml").read_text() == ci_text(
        service, Job(read_source(GIT), candidate="a.onnx", data="emnist:balanced")
    )


def test_a_hook_that_nothing_installs_says_what_it_needs(
    glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolchain.ci.installed_source", lambda: None)
    needs = "needs glyphpress on the PATH of everyone who commits"
    assert needs in glyphpress("gate", "init", "--ci", "pre-commit").err
    assert "repo: local" in Path(".pre-commit-config.yaml").read_text()
    assert needs not in glyphpress("gate", "init", "--ci", "pre-commit", "--install", GIT, "--force").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ci", "githup"], "did you mean github?"),
        (["--ci", "github", "--policy", "strict"], "a run of its own"),
        (["--ci", "github"], "(a folder or repository of this machine, changed code, or a commit that no remote has)"),
        (["--ci", "github"], "give --install git+https://"),
        (["--ci", "pre-commit", "--install", "glyphpress==0.2.0"], "from git alone"),
        (["--candidate", "a.onnx"], "--candidate does nothing without --ci"),
        (["--policy", "strikt"], "did you mean strict"),
        (["--policy", "none.toml"], "no such policy file"),
    ],
)
def test_what_init_cannot_write_is_a_usage_error(
    *, glyphpress: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ci, "installed_source", lambda: None)
    done = glyphpress("gate", "init", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert list(tmp_path.iterdir()) == []
