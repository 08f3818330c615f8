"""The contract of every limit: explained, refused without its evidence, and judged; one file adds another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.evidence import whole
from toolchain.core.errors import EvidenceError
from toolchain.core.json_codec import from_json, to_json
from toolchain.gate.gate import Evidence, judge, judge_limit
from toolchain.gate.limit import Limit, Verdict
from toolchain.gate.limits import LIMITS, definition, definitions
from toolchain.gate.limits.stress import StressLimit, StressPairs
from toolchain.gate.policy import Policy, policy_from, schema, template

ROOT = Path(__file__).resolve().parents[4]
LIMITS_PAGE = ROOT / "docs" / "reference" / "limits.md"
ALWAYS_THERE = {"pairs", "rows", "files"}


def evidence() -> Evidence:
    """Evidence of everything, on classes that every example names, under each kind of damage."""
    made = whole()
    one = made.stress[0]
    kinds = StressLimit(max=0.01).kinds
    stress = tuple(StressPairs(kind, 0, one.strengths, one.before, one.after) for kind in kinds)
    return replace(made, pairs=replace(made.pairs, classes=tuple("0O17")), stress=stress)


def asked(name: str) -> Limit:
    """The settings of a limit as its own example says them."""
    limits = dict(policy_from({name: dict(definition(name).example), "drop": {"max": "0.3pp"}}).limits())
    return limits[name]


def test_the_table_of_limits_is_the_policy() -> None:
    assert [*LIMITS, "baseline"] == list(Policy.model_fields)
    assert [limit.name for limit in definitions().values()] == list(LIMITS)
    folder = ROOT / "toolchain" / "gate" / "limits"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {module.partition(":")[0].rpartition(".")[2] for module in LIMITS.values()} == files


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_explained_wherever_people_look(name: str) -> None:
    about = definition(name).about
    text = template(policy_from({"flips" if name == "drop" else "drop": {"max": "1pp"}}))
    assert re.search(rf"^# {re.escape(about)}\n#\[{name}\]$", text, re.MULTILINE)
    entry = schema()["properties"][name]
    assert entry["description"] == about
    assert entry["$ref"].removeprefix("#/$defs/") in schema()["$defs"]
    assert re.search(rf"^\|.*`{name}`.*\|.*\|$", LIMITS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_gives_a_verdict_of_itself(name: str) -> None:
    settings = asked(name)
    assert type(settings) is definition(name).settings
    verdict = judge_limit(name, settings, evidence())
    assert (verdict.limit, verdict.action) == (name, "fail")
    assert verdict.threshold == (settings.min if name == "shrink" else settings.max)
    assert verdict.reason
    assert "\n" not in verdict.reason
    assert from_json(Verdict, json.dumps(to_json(verdict))) == verdict
    warned = judge_limit(name, settings.model_copy(update={"action": "warn"}), evidence())
    assert warned == replace(verdict, action="warn")


def repeated(made: Evidence, times: int) -> Evidence:
    """The same evidence as it is of every image `times` times."""
    arrays = ("labels", "before", "after", "before_confidence", "after_confidence", "sample_ids")
    pairs = replace(made.pairs, **{name: np.tile(getattr(made.pairs, name), times) for name in arrays})
    stress = tuple(
        replace(kind, **{name: np.tile(getattr(kind, name), times) for name in ("strengths", "before", "after")})
        for kind in made.stress
    )
    return Evidence(pairs, stress=stress)


@pytest.mark.parametrize(
    "name", [name for name, limit in definitions().items() if {*limit.evidence} & {"pairs", "rows"}]
)
def test_images_that_are_repeated_change_no_verdict(name: str) -> None:
    made = evidence()
    assert judge_limit(name, asked(name), repeated(made, 20)) == judge_limit(name, asked(name), made)


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name, limit in definitions().items() for part in limit.evidence if part not in ALWAYS_THERE],
)
def test_a_limit_without_its_evidence_is_an_error(name: str, part: str) -> None:
    empty = next(field.default for field in fields(Evidence) if field.name == part)
    policy = policy_from({name: dict(definition(name).example)})
    with pytest.raises(EvidenceError, match=f"limits {name}, but the evidence does not hold it"):
        judge(policy, replace(evidence(), **{part: empty}))


@pytest.mark.parametrize("name", LIMITS)
def test_what_the_gate_does_not_have_anyway_the_limit_collects(name: str) -> None:
    limit = definition(name)
    assert bool(limit.collect) == (not limit.timed and limit.evidence[0] not in ALWAYS_THERE)
    # What is collected needs the file, so a saved evaluation must be refused before any work.
    assert bool(limit.file_must) == bool(limit.collect or limit.timed)


WRONG = '''
from typing import ClassVar

from pydantic import Field

from toolchain.gate.limit import Limit, LimitDefinition, Measure
from toolchain.gate.limit import Verdict
from toolchain.gate.limit import side, within


class WrongLimit(Limit):
    """How many images the candidate may read wrongly."""

    measure: ClassVar[Measure] = "count"
    max: int = Field(ge=0, strict=True)


def judge(limit, pairs):
    wrong = int((pairs.after != pairs.labels).sum())
    outcome = within("wrong", wrong, limit.max)
    return Verdict("wrong", outcome, limit.action, limit.max, wrong, None, f"{wrong} {side(outcome)} {limit.max}")


WRONG = LimitDefinition(
    name="wrong", settings=WrongLimit, about="Images that it reads wrongly.", example={"max": 7}, judge=judge
)
'''
PROGRAM = """
import json

from toolchain.core.json_codec import to_json
from toolchain.gate.limits import LIMITS

LIMITS["wrong"] = "wrong:WRONG"

from tests.fixtures.evidence import whole
from toolchain.gate.gate import judge
from toolchain.gate.policy import policy_from, schema
from toolchain.gate.policy import template
from toolchain.report.judgement import allowed_text, value_text

policy = policy_from({"wrong": {"max": 1}})
verdict, = judge(policy, whole())
print(json.dumps({
    "schema": schema(),
    "template": template(policy_from({"drop": {"max": "1pp"}})),
    "set": template(policy),
    "verdict": to_json(verdict),
    "texts": [value_text("wrong", verdict.measured), allowed_text("wrong", verdict.threshold)],
}))
"""


def test_another_limit_is_one_file_and_one_line_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "program.py").write_text(PROGRAM)
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import program"
    done = subprocess.run([sys.executable, "-c", path], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["schema"]["properties"]["wrong"]["description"] == "Images that it reads wrongly."
    assert said["schema"]["$defs"]["WrongLimit"]["properties"]["max"]["minimum"] == 0
    assert '\n# Images that it reads wrongly.\n#[wrong]\n#max = 7\n#action = "fail"\n' in said["template"]
    assert tomllib.loads(said["set"])["wrong"] == {"max": 1, "action": "fail"}
    assert (said["verdict"]["limit"], said["verdict"]["outcome"]) == ("wrong", "FAIL")
    assert said["verdict"]["reason"] == "2 beyond the limit of 1"
    assert said["texts"] == ["2", "at most 1"]
