"""The judgement: what several candidates come to, `verdict.json` and its published schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.fixtures.judgements import LOOSE, STRICT, answers, concluded, gathered
from tests.fixtures.small_readers import DIGITS
from toolchain.core.errors import EvidenceError, GateFailed, GateInconclusive, UsageProblem
from toolchain.core.json_codec import to_json
from toolchain.gate.gate import Evidence
from toolchain.report.judgement import Judgement, verdict_schema
from toolchain.stats.decision import Outcome

DROP = {"drop": {"max": "0.3pp"}}
GOOD, UNSURE, BAD = (5, 5), (50, 0), (400, 0)


def rivals(*files: tuple[tuple[int, int], int, int]) -> list[Evidence]:
    """Candidates of (lost, gained), size and P50."""
    return [
        answers(*changed, name=f"{index}.onnx", size=size, p50=p50) for index, (changed, size, p50) in enumerate(files)
    ]


@pytest.mark.parametrize(
    ("files", "winner", "outcome"),
    [
        pytest.param([(GOOD, 200, 0)], "0.onnx", Outcome.PASS, id="one that passes"),
        pytest.param([(BAD, 200, 0)], None, Outcome.FAIL, id="one that fails"),
        pytest.param([(UNSURE, 200, 0)], None, Outcome.INCONCLUSIVE, id="one that cannot be told"),
        pytest.param([(GOOD, 200, 0), (GOOD, 100, 0)], "1.onnx", Outcome.PASS, id="the smaller of two"),
        pytest.param([(GOOD, 200, 50), (GOOD, 100, 90)], "0.onnx", Outcome.PASS, id="the faster of two"),
        pytest.param([(GOOD, 200, 50), (GOOD, 100, 50)], "1.onnx", Outcome.PASS, id="as fast: the smaller"),
        pytest.param([(GOOD, 200, 50), (GOOD, 100, 0)], "1.onnx", Outcome.PASS, id="one was not timed: the smaller"),
        pytest.param([(GOOD, 200, 0), (BAD, 100, 0)], "0.onnx", Outcome.PASS, id="the smallest fails"),
        pytest.param([(BAD, 200, 0), (BAD, 100, 0)], None, Outcome.FAIL, id="all fail"),
        pytest.param([(BAD, 200, 0), (UNSURE, 100, 0)], None, Outcome.INCONCLUSIVE, id="one may pass with more images"),
    ],
)
def test_of_several_candidates_the_best_that_passes_ships(
    files: Sequence[tuple[tuple[int, int], int, int]], winner: str | None, outcome: Outcome
) -> None:
    judgement = concluded(DROP, *rivals(*files))
    assert (judgement.winner, judgement.outcome, judgement.competitors) == (winner, outcome, len(files))
    if outcome is Outcome.PASS:
        judgement.raise_unless_passed()
    else:
        with pytest.raises(GateFailed if outcome is Outcome.FAIL else GateInconclusive, match=f"^{outcome}: "):
            judgement.raise_unless_passed()


def test_the_error_gives_the_reason_of_each_candidate_that_decided() -> None:
    with pytest.raises(GateFailed, match=r"0\.onnx \(drop\); .*1\.onnx \(drop\)"):
        concluded(DROP, *rivals((BAD, 200, 0), (BAD, 100, 0))).raise_unless_passed()


def test_verdict_json_comes_back_and_is_what_its_schema_says(tmp_path: Path) -> None:
    judgement = concluded(LOOSE, gathered(), gathered(broken=True))
    judgement.save(tmp_path / "verdict.json")
    assert Judgement.load(tmp_path / "verdict.json") == judgement
    values = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert values["schema"] == "glyphpress/verdict/1"
    assert values["candidates"][1]["verdicts"][1]["parts"][4]["name"] == DIGITS[4]
    schema = verdict_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(values)
    for broken in (values | {"extra": 1}, {key: values[key] for key in values if key != "winner"}):
        assert not validator.is_valid(broken)


def test_every_limit_of_a_policy_is_in_the_schema() -> None:
    policy = verdict_schema()["$defs"]["Policy"]["properties"]
    assert {"drop", "stress", "p95_ratio", "baseline"} <= policy.keys()


def altered(values: dict[str, Any], *keys: str | int, to: object) -> dict[str, Any]:
    """A deep copy in which the value at the end of `keys` is another one."""
    copy: Any = json.loads(json.dumps(values))
    parent = copy
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = to
    return dict(copy)


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        (("outcome",), "PASS"),
        (("winner",), "int8.onnx"),
        (("candidates", 0, "outcome"), "PASS"),
        (("candidates", 0, "verdicts"), []),
        (("candidates",), []),
        (("policy",), {}),
        (("extra",), 1),
    ],
)
def test_an_altered_judgement_is_refused(tmp_path: Path, keys: tuple[str | int, ...], to: object) -> None:
    values = to_json(concluded(DROP, answers(*BAD)))
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(altered(values, "competitors", to=1)))
    assert Judgement.load(path).outcome is Outcome.FAIL
    path.write_text(json.dumps(altered(values, *keys, to=to)))
    with pytest.raises(EvidenceError, match="; run the gate again"):
        Judgement.load(path)


def test_a_judgement_of_a_later_glyphpress_says_who_made_it_and_to_update(tmp_path: Path) -> None:
    later = {"schema": "glyphpress/verdict/2", "tools": {"glyphpress": "3.0"}}
    (tmp_path / "verdict.json").write_text(json.dumps(to_json(concluded(DROP, answers(*BAD))) | later))
    with pytest.raises(EvidenceError, match=r"made by glyphpress 3\.0 \(format 2\).*: update glyphpress$"):
        Judgement.load(tmp_path / "verdict.json")


def test_candidates_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(EvidenceError, match="give at least one candidate"):
        concluded(DROP)
    with pytest.raises(EvidenceError, match=r"several candidates are called int8\.onnx"):
        concluded(DROP, answers(*GOOD), answers(*BAD))
    foreign = answers(*GOOD, name="other.onnx")
    pairs = replace(foreign.pairs, dataset_sha256="1" * 64)
    with pytest.raises(EvidenceError, match="other baselines or images"):
        concluded(DROP, answers(*GOOD), replace(foreign, pairs=pairs))


def test_only_paths_below_the_working_folder_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, path in ((Path("out/int8.onnx"), "out/int8.onnx"), (Path("/elsewhere/int8.onnx"), "int8.onnx")):
        (judged,) = concluded(STRICT, answers(*GOOD), files=[file]).candidates
        assert judged.path == path


def test_nothing_is_overwritten_silently(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text("mine")
    with pytest.raises(UsageProblem, match="--force"):
        concluded(DROP, answers(*GOOD)).save(path)
    assert path.read_text() == "mine"
    with pytest.raises(EvidenceError, match="not a stored judgement"):
        Judgement.load(path)
