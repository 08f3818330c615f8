"""Stored baselines: as good as the file they were made from, and refused when changed, stale or foreign."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.dataset import Dataset
from targets.artifact import Artifact, Format
from targets.metadata import load_artifact, save_sidecar
from tests.fixtures.small_readers import digits, linear_reader, written
from toolchain.checkpoint.float_model import FloatModel
from toolchain.core.context import RunContext
from toolchain.core.errors import EvidenceError, UsageProblem
from toolchain.core.json_codec import from_json, to_json
from toolchain.export import export
from toolchain.gate.baseline import Baseline
from toolchain.gate.candidate import JudgedFile, evaluate_file, read_judged_file
from toolchain.gate.collect import check_baseline, gather, save_baseline
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.policy import Policy, policy_from
from toolchain.quantize import quantize
from toolchain.recipe import Prune, Quantize
from toolchain.stats.decision import Outcome

STRESS = {"max": "5pp", "kinds": ["blur", "speckle"]}
LINE = {"checkpoint_sha256": "c" * 64, "parent_sha256": "c" * 64}


def policy(**tables: Any) -> Policy:
    return policy_from({"drop": {"max": "5pp"}} | tables)


def of_line(path: Path, **line: str | None) -> Path:
    """Write into the sidecar where the file comes from."""
    save_sidecar(replace(load_artifact(path), **line))
    return path


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_line(linear_reader(tmp_path_factory.mktemp("float") / "digits.float.onnx"), **LINE)


@pytest.fixture(scope="module")
def stored(float_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "baseline.npz"
    save_baseline(float_file, policy(stress=STRESS), digits(), path)
    return path


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    return of_line(linear_reader(tmp_path / "digits.int8.onnx", step=0.02), **LINE)


def gathered(base: Path, own: Path, asked: Policy, data: Dataset | None = None) -> Evidence:
    data = data or digits()
    return gather(asked, *(read_judged_file(path, data) for path in (base, own)), data)


def test_ci_gets_the_same_verdicts_from_the_stored_baseline_as_from_the_float_file(
    stored: Path, float_file: Path, candidate: Path
) -> None:
    asked = policy(stress=STRESS, flips={"max": "5pp"}, ece={"max": "5pp"}, rejects={"max": "5pp"})
    from_file, from_stored = (gathered(base, candidate, asked) for base in (float_file, stored))
    assert judge(asked, from_stored) == judge(asked, from_file)
    assert from_stored.pairs.baseline == from_file.pairs.baseline
    assert from_stored.baseline_digest == Baseline.load(stored).digest
    assert from_file.baseline_digest is None
    again = from_json(Evidence, json.dumps(to_json(from_stored)))
    assert again.baseline_digest == from_stored.baseline_digest


def test_a_baseline_comes_back_to_the_bit_and_is_the_same_each_time_it_is_made(
    stored: Path, float_file: Path, tmp_path: Path
) -> None:
    back = Baseline.load(stored)
    again = save_baseline(float_file, policy(stress=STRESS), digits(), tmp_path / "again.npz")
    assert again.digest == back.digest == Baseline.load(tmp_path / "again.npz").digest
    assert back.evaluation.logits.tobytes() == again.evaluation.logits.tobytes()
    assert [one.kind for one in back.stress] == ["blur", "speckle"]
    assert (back.parent_sha256, back.checkpoint_sha256) == ("c" * 64, "c" * 64)
    plain = save_baseline(float_file, policy(), digits(), tmp_path / "plain.npz")
    assert plain.stress == ()
    assert plain.digest != back.digest


def test_a_baseline_of_a_stored_one_holds_what_its_own_policy_asks_for(
    stored: Path, float_file: Path, tmp_path: Path
) -> None:
    plain = save_baseline(stored, policy(), digits(), tmp_path / "plain.npz")
    assert plain.stress == ()
    again = save_baseline(stored, policy(stress=STRESS), digits(), tmp_path / "again.npz")
    assert again.digest == Baseline.load(stored).digest
    with pytest.raises(UsageProblem, match=r"cannot be read under damage \(\[stress\]\)"):
        save_baseline(tmp_path / "plain.npz", policy(stress=STRESS), digits(), tmp_path / "third.npz")


def test_every_part_of_what_is_held_is_in_the_digest(stored: Path) -> None:
    held = Baseline.load(stored)
    logits = held.evaluation.logits.copy()
    logits[7, 3] = np.nextafter(logits[7, 3], np.float32(9))
    labels = held.evaluation.labels.copy()
    labels[5] = (labels[5] + 1) % 10
    first, second = held.stress
    answers = first.answers.copy()
    answers[0] = (answers[0] + 1) % 10
    changed = [
        replace(held, evaluation=replace(held.evaluation, logits=logits)),
        replace(held, evaluation=replace(held.evaluation, labels=labels)),
        replace(held, evaluation=replace(held.evaluation, artifact="other.onnx")),
        replace(held, evaluation=replace(held.evaluation, facts=replace(held.evaluation.facts, version="0"))),
        replace(held, stress=(first,)),
        replace(held, stress=(second, first)),
        replace(held, stress=(replace(first, answers=answers), second)),
        replace(held, stress=(replace(first, sha256="0" * 64), second)),
        replace(held, parent_sha256=None),
        replace(held, checkpoint_sha256="d" * 64),
        replace(held, tool="9.9"),
    ]
    assert len({one.digest for one in (held, *changed)}) == len(changed) + 1


def test_no_changed_byte_goes_through_as_another_baseline(stored: Path, tmp_path: Path) -> None:
    """Bytes of the packing that carry nothing, such as a date, may change: then the content is the same."""
    content, digest = stored.read_bytes(), Baseline.load(stored).digest
    rng = np.random.default_rng(0)
    broken = tmp_path / "broken.npz"
    refused = 0
    for place in (*rng.integers(0, len(content), 60), *range(30), *range(len(content) - 30, len(content))):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(0, 8))
        broken.write_bytes(changed)
        try:
            assert Baseline.load(broken).digest == digest
        except EvidenceError:
            refused += 1
    assert refused > 60
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(EvidenceError):
        read_judged_file(broken, digits())


def edited(path: Path, to: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Pack the file again, whole and well-formed, with other content."""
    with np.load(path) as packed:
        arrays = dict(packed)
    meta = json.loads(str(arrays.pop("meta")))
    change(meta, arrays)
    np.savez_compressed(to, meta=np.array(json.dumps(meta)), **arrays)
    return to


def _better_answers(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["logits"] = np.eye(10, dtype=np.float32)[(arrays["labels"] + 1) % 10]


def _other_stress(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["blur_answers"] = (arrays["blur_answers"] + 1) % 10


def _other_line(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    meta["checkpoint_sha256"] = "d" * 64


def _other_digest(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    meta["digest"] = "0" * 64


def _more_facts(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    meta["approved_by"] = "nobody"


def _more_arrays(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["more"] = np.zeros(3)


def _no_digest(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    del meta["digest"]


def _later_version(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    meta |= {"schema": "glyphpress/baseline/9", "tool": "9.1.0"}


@pytest.mark.parametrize(
    "change",
    [_better_answers, _other_stress, _other_line, _other_digest, _more_facts, _more_arrays, _no_digest],
)
def test_a_well_formed_file_with_other_content_is_refused(
    change: Callable[[dict[str, Any], dict[str, Any]], None], stored: Path, tmp_path: Path
) -> None:
    with pytest.raises(EvidenceError, match="store it again with `glyphpress gate baseline`"):
        read_judged_file(edited(stored, tmp_path / "edited.npz", change), digits())


def test_a_baseline_of_a_later_glyphpress_says_to_update(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"made by glyphpress 9\.1\.0 \(format 9\).*: update glyphpress$"):
        read_judged_file(edited(stored, tmp_path / "edited.npz", _later_version), digits())


def test_a_policy_that_names_a_baseline_takes_that_one_alone(
    stored: Path, float_file: Path, candidate: Path, tmp_path: Path
) -> None:
    digest = Baseline.load(stored).digest
    named = policy(baseline={"digest": digest})
    evidence = gathered(stored, candidate, named)
    assert judge(named, evidence)[0].outcome is Outcome.PASS
    other = policy(baseline={"digest": "0" * 64})
    with pytest.raises(
        EvidenceError, match=f"written for the stored baseline 000000000000, .* has digest {digest[:12]}"
    ):
        gathered(stored, candidate, other)
    with pytest.raises(EvidenceError, match="has digest"):
        judge(other, evidence)
    for base in (float_file, tmp_path / "saved.npz"):
        evaluate_file(float_file, digits()).save(tmp_path / "saved.npz", force=True)
        with pytest.raises(EvidenceError, match="is no stored baseline; give that one"):
            gathered(base, candidate, named)


def test_a_baseline_of_other_images_is_refused(stored: Path, candidate: Path) -> None:
    fewer = digits().take(np.arange(300), "some")
    with pytest.raises(EvidenceError, match="other images"):
        read_judged_file(stored, fewer)


@pytest.mark.parametrize(
    ("line", "foreign"),
    [
        pytest.param(LINE, False, id="made from the same checkpoint"),
        pytest.param({"checkpoint_sha256": "d" * 64, "parent_sha256": "d" * 64}, True, id="another checkpoint"),
        pytest.param({"checkpoint_sha256": "d" * 64, "parent_sha256": "e" * 64}, True, id="through a float file"),
        pytest.param({"checkpoint_sha256": "c" * 64, "parent_sha256": "e" * 64}, False, id="pruned, from the same"),
        pytest.param({"checkpoint_sha256": None, "parent_sha256": "e" * 64}, False, id="a sidecar of before"),
        pytest.param({"checkpoint_sha256": None, "parent_sha256": None}, False, id="a file of unknown origin"),
    ],
)
def test_a_candidate_that_is_known_to_be_of_another_line_makes_the_baseline_foreign(
    line: dict[str, str | None], foreign: bool, stored: Path, candidate: Path
) -> None:
    of_line(candidate, **line)
    if foreign:
        with pytest.raises(
            EvidenceError, match=r"foreign: digits.float.onnx came from checkpoint cccccccccccc, digits"
        ):
            gathered(stored, candidate, policy())
    else:
        assert judge(policy(), gathered(stored, candidate, policy()))[0].outcome is Outcome.PASS


def test_a_sidecar_that_contradicts_its_own_parent_makes_the_baseline_foreign(stored: Path, candidate: Path) -> None:
    parent = Baseline.load(stored).evaluation.artifact_sha256
    of_line(candidate, checkpoint_sha256="d" * 64, parent_sha256=parent)
    with pytest.raises(EvidenceError, match=r"foreign: digits.float.onnx came from checkpoint cccccccccccc"):
        gathered(stored, candidate, policy())
    of_line(candidate, checkpoint_sha256="c" * 64, parent_sha256=parent)
    assert gathered(stored, candidate, policy()).baseline_digest


def test_a_users_own_file_may_be_baseline_and_checkpoint_at_once(tmp_path: Path) -> None:
    own = of_line(linear_reader(tmp_path / "own.onnx"), checkpoint_sha256="f" * 64)
    save_baseline(own, policy(), digits(), tmp_path / "own.npz")
    sha256 = load_artifact(own).sha256
    pressed = of_line(linear_reader(tmp_path / "pressed.onnx", step=0.02), checkpoint_sha256=sha256)
    assert gathered(tmp_path / "own.npz", pressed, policy()).baseline_digest


def test_the_float_file_itself_may_be_compared_with_any_model(float_file: Path, candidate: Path) -> None:
    of_line(candidate, checkpoint_sha256="d" * 64, parent_sha256="d" * 64)
    assert judge(policy(), gathered(float_file, candidate, policy()))[0].outcome is Outcome.PASS


def versioned(subject: JudgedFile, version: str) -> JudgedFile:
    facts = replace(subject.evaluation.facts, version=version)
    return replace(subject, evaluation=replace(subject.evaluation, facts=facts))


def test_a_baseline_that_another_major_runtime_answered_is_stale(stored: Path, candidate: Path) -> None:
    base, own = (read_judged_file(path, digits()) for path in (stored, candidate))
    check_baseline(policy(), versioned(base, "1.2.0"), versioned(own, "1.30.1"))
    with pytest.raises(EvidenceError, match=r"stale: onnxruntime 1\.30\.1 answered it, 2\.0\.0 the candidate"):
        check_baseline(policy(), versioned(base, "1.30.1"), versioned(own, "2.0.0"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param({"max": "5pp", "kinds": ["blur"]}, "", id="fewer kinds"),
        pytest.param({"max": "5pp", "kinds": ["blur", "thick"]}, "not read under thick", id="more kinds"),
        pytest.param(STRESS | {"seed": 1}, "by seed 0 and strengths", id="other seed"),
        pytest.param(STRESS | {"strengths": [4, 5]}, "strengths 1, 2, 3, 4, 5, not as", id="other strengths"),
    ],
)
def test_a_policy_that_asks_for_other_damage_is_told_before_anything_is_read(
    asked: dict[str, Any], said: str, stored: Path, candidate: Path
) -> None:
    if not said:
        assert len(gathered(stored, candidate, policy(stress=asked)).stress) == 1
        return
    base, own = (read_judged_file(path, digits()) for path in (stored, candidate))
    context = RunContext(progress=lambda *_: pytest.fail("it was read under damage"))
    with pytest.raises(EvidenceError, match=said) as refused:
        gather(policy(stress=asked), base, own, digits(), context=context)
    assert "store it again under this policy" in str(refused.value)


def test_what_cannot_be_stored_is_said_before_any_work(float_file: Path, stored: Path, tmp_path: Path) -> None:
    def nothing(*_: object) -> None:
        pytest.fail("it was evaluated")

    with pytest.raises(UsageProblem, match="--force"):
        save_baseline(float_file, policy(), digits(), stored, context=RunContext(progress=nothing))
    with pytest.raises(UsageProblem, match=r"end in \.npz"):
        save_baseline(float_file, policy(), digits(), tmp_path / "baseline.json", context=RunContext(progress=nothing))
    evaluate_file(float_file, digits()).save(tmp_path / "saved.npz")
    with pytest.raises(UsageProblem, match="only a saved evaluation, which cannot be read under damage"):
        save_baseline(tmp_path / "saved.npz", policy(stress=STRESS), digits(), tmp_path / "new.npz")
    assert save_baseline(tmp_path / "saved.npz", policy(), digits(), tmp_path / "new.npz").checkpoint_sha256 is None


def test_answers_that_do_not_fit_are_no_baseline(stored: Path) -> None:
    held = Baseline.load(stored)
    few = written(np.zeros(4, np.int64), np.zeros(4, np.int64))
    with pytest.raises(EvidenceError, match="not of the 4 images"):
        Baseline(few, held.stress)
    with pytest.raises(EvidenceError, match="twice"):
        Baseline(held.evaluation, held.stress + held.stress)
    beyond = replace(held.stress[0], answers=held.stress[0].answers + 9)
    with pytest.raises(EvidenceError, match="do not fit 10 classes"):
        Baseline(held.evaluation, (beyond,))


@pytest.mark.slow
def test_pressed_files_lead_back_to_their_checkpoint(
    float_model: FloatModel, floats: dict[Format, Artifact], checkpoint: Path, tmp_path: Path
) -> None:
    from toolchain.checkpoint import CheckpointRequest, settle
    from toolchain.commands.compress import compress_checkpoint

    root = float_model.checkpoint_sha256
    assert floats["onnx"].checkpoint_sha256 == root
    int8 = quantize(floats["onnx"], Quantize(scheme="dynamic-int8"), None, tmp_path / "int8.onnx", recipe="int8")
    int8.sidecar.unlink()
    assert load_artifact(int8.path).checkpoint_sha256 == root  # the file's own metadata says it too
    step = Prune(ratio=0.2, epochs=0)
    pruned = compress_checkpoint(
        str(checkpoint),
        CheckpointRequest(),
        step,
        tmp_path / "pruned.pt2",
        data="builtin:digits",
        context=RunContext(threads=1),
    ).model
    assert pruned.root_sha256 == root
    model = settle(str(tmp_path / "pruned.pt2"), CheckpointRequest(), None).model
    assert model.checkpoint_sha256 != root
    thin = export(model, "onnx", tmp_path / "thin.onnx")
    assert (thin.checkpoint_sha256, thin.parent_sha256) == (root, model.checkpoint_sha256)
