"""How each file wants its images: named by every verdict, never fitted to the judged images, alike for both files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import onnx
import pytest
from onnx import helper

from calibration.load import load
from targets.metadata import load_artifact, save_sidecar
from targets.preprocess import Preprocess
from tests.conftest import Finished
from tests.fixtures.small_readers import linear_reader
from toolchain.core.errors import EvidenceError
from toolchain.evaluation.untracked import open_artifact

Run = Callable[..., Finished]
DATA = ("--data", "builtin:digits")
UPRIGHT = "upright, 0 to 1"


@pytest.fixture
def float_file(tmp_path: Path) -> Path:
    return linear_reader(tmp_path / "float.onnx")


@pytest.fixture
def turned(float_file: Path) -> Path:
    """The same reader as another tool leaves it: its images transposed first, and nothing in it that says so."""
    model = onnx.load(float_file)
    model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 1, 3, 2]))
    model.graph.node[1].input[0] = "turned"
    path = float_file.with_name("turned.onnx")
    onnx.save(model, path)
    return path


def gated(glyphpress: Run, base: Path, own: Path, *words: object) -> Finished:
    return glyphpress("gate", "--baseline", base, "--candidate", own, *DATA, "--policy", "smoke", *words)


def test_row44_a_candidate_that_wants_its_images_turned_fails_and_every_output_names_how_both_want_them(
    glyphpress: Run, float_file: Path, turned: Path, tmp_path: Path
) -> None:
    files = {kind: tmp_path / f"out.{kind}" for kind in ("verdict", "markdown", "junit", "sarif")}
    words = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    run = gated(glyphpress, float_file, turned, *words)
    assert run.code == 1, run.err
    assert "FAIL         preprocess: turned.onnx wants transpose, 0 to 1" in run.out
    assert "orientation transpose instead of upright" in run.out
    verdict = json.loads(files["verdict"].read_text())
    own = verdict["candidates"][0]["file"]
    assert (own["preprocess"]["orientation"], own["preprocess_source"]) == ("transpose", "searched")
    assert verdict["baseline"]["preprocess_source"] == "sidecar"
    # It reads as well as the baseline when it is given its images turned: accuracy alone would let it through.
    outcomes = {one["limit"]: one["outcome"] for one in verdict["candidates"][0]["verdicts"]}
    assert outcomes == {"drop": "PASS", "flips": "PASS", "preprocess": "FAIL"}
    assert ET.parse(files["junit"]).find(".//testcase[@name='preprocess']/failure") is not None
    assert [one["ruleId"] for one in json.loads(files["sarif"].read_text())["runs"][0]["results"]] == ["preprocess"]
    for text in (run.out, *(file.read_text() for file in files.values() if file != files["verdict"])):
        assert f"{UPRIGHT} (sidecar)" in text
        assert "transpose, 0 to 1" in text
        assert "(searched)" in text


def test_row44_a_verdict_of_files_that_are_alike_names_how_they_want_their_images_too(
    glyphpress: Run, float_file: Path
) -> None:
    own = linear_reader(float_file.with_name("int8.onnx"), step=0.01)
    run = gated(glyphpress, float_file, own)
    assert run.code == 0, run.err
    assert run.out.count(f"takes {UPRIGHT} (sidecar)") == 2


def test_row44_the_policy_can_make_it_a_warning(
    glyphpress: Run, float_file: Path, turned: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "warn.toml"
    policy.write_text('[drop]\nmax = "3pp"\n[preprocess]\naction = "warn"\n')
    run = glyphpress("gate", "--baseline", float_file, "--candidate", turned, *DATA, "--policy", policy)
    assert run.code == 0, run.err
    assert "FAIL         preprocess (only warns)" in run.out


def test_row44_a_search_refuses_the_images_that_judge(turned: Path) -> None:
    with pytest.raises(EvidenceError, match="is a test split, to which nothing may be fitted"):
        open_artifact(turned, lambda: load("builtin:digits", "test"))


def test_row44_with_test_images_alone_the_fix_is_said_and_works(
    glyphpress: Run, float_file: Path, turned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibration import dataset
    from calibration.errors import DataNotFound

    def only_test(spec: str, split: dataset.Split = "test", data_root: Path | None = None) -> dataset.Dataset:
        if split == "train":
            raise DataNotFound(f"{spec} has no training images; add them")
        return load(spec, split, data_root)

    monkeypatch.setattr("toolchain.evaluation.untracked.load", only_test)
    refused = gated(glyphpress, float_file, turned)
    assert refused.code == 3
    assert "turned.onnx: no sidecar says how it wants its images" in refused.err
    assert "glyphpress adopt FILE --data builtin:digits --orientation" in refused.err
    words = ("--orientation", "transpose", "--scale", "0-1")
    assert glyphpress("adopt", turned, *DATA, *words).code == 0
    assert "takes transpose, 0 to 1 (sidecar)" in gated(glyphpress, float_file, turned).out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"mean": 0.5, "std": 0.5}, "pixels 0 to 1, mean 0.5 std 0.5 instead of 0 to 1", id="row44-mean"),
        pytest.param({"invert": True}, "pixels 0 to 1, inverted instead of 0 to 1", id="row44-ink"),
        pytest.param({"orientation": "rot90"}, "orientation rot90 instead of upright", id="row44-turn"),
    ],
)
def test_what_a_file_says_wrongly_is_named_as_the_likely_cause(
    glyphpress: Run, float_file: Path, wrong: dict[str, object], said: str
) -> None:
    own = float_file.with_name("int8.onnx")
    shutil.copy(float_file, own)
    facts = load_artifact(float_file)
    save_sidecar(replace(facts, path=own, preprocess=replace(Preprocess(), **wrong)))
    run = gated(glyphpress, float_file, own)
    assert run.code == 1
    drop = next(line for line in run.out.splitlines() if line.startswith("FAIL         drop"))
    assert f"likely cause: int8.onnx was given {said}, as its sidecar says" in drop


@pytest.mark.parametrize(
    ("one", "other", "unlike"),
    [
        pytest.param(Preprocess(), Preprocess(layout="NHWC"), 0, id="row44-layout is the same bytes"),
        pytest.param(Preprocess(), Preprocess(dtype="uint8"), 0, id="row44-raw pixels are refused by the runtime"),
        pytest.param(Preprocess(scale="0-255", std=255.0), Preprocess(), 0, id="row44-the same values otherwise said"),
        pytest.param(Preprocess(mean=0.1307, std=0.3081), Preprocess(mean=0.1722, std=0.3309), 1, id="row44-MNIST's"),
        pytest.param(Preprocess("rot90", invert=True, label_offset=1), Preprocess(), 3, id="row44-everything"),
    ],
)
def test_what_an_application_would_get_wrong_is_counted(one: Preprocess, other: Preprocess, unlike: int) -> None:
    assert len(one.unlike(other)) == len(other.unlike(one)) == unlike
