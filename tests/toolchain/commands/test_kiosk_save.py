"""Glyphs that were read wrong become a test set, on which the file gives the same wrong answers again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.builtin import digits
from calibration.errors import CorruptData, EmptyData
from calibration.load import load
from targets import catalog
from targets.metadata import save_sidecar
from tests.fixtures.small_models import CLASSES, artifact, conv_net
from toolchain.commands.kiosk_save import open_glyph_folder
from toolchain.core.errors import StageError, UsageProblem


def test_what_was_read_wrong_is_read_wrong_again_by_evaluate(glyphpress: Callable[..., Any], tmp_path: Path) -> None:
    model = artifact(conv_net(tmp_path / "net.onnx"), orientation="rot90", mean=0.25, std=0.5, invert=True)
    save_sidecar(model)
    images, labels = digits().images[:60], digits().labels[:60]
    with catalog.default_for("onnx").open(model) as session:
        answers = session.run(np.asarray(images)).argmax(1)
    wrong = np.flatnonzero(answers != labels)[:7]
    folder = open_glyph_folder(tmp_path / "wrong", CLASSES)
    for index in wrong:
        assert folder.keep(CLASSES[labels[index]], images[index].tobytes()).new
    done = glyphpress("evaluate", model.path, "--data", tmp_path / "wrong", "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["accuracy"] == 0
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels[wrong], answers[wrong]), 1)
    np.testing.assert_array_equal(metrics["confusion"], confusion)
    assert (confusion.sum(1) == 0).any(), "a class without glyphs is part of the data set"
    data = load(str(tmp_path / "wrong"), "test")
    assert {image.tobytes() for image in data.images} == {images[index].tobytes() for index in wrong}


def test_a_glyph_is_kept_once_under_a_name_that_every_file_system_takes(tmp_path: Path) -> None:
    first, second = (digits().images[index].tobytes() for index in (0, 1))
    names = ("A", "a", "..", "con", "x/y")
    folder = open_glyph_folder(tmp_path / "kept", names)
    kept = [folder.keep(name, digits().images[number].tobytes()) for number, name in enumerate(names)]
    folders = {each.file.split("/")[1].casefold() for each in kept}
    assert len(folders) == len(names)
    assert all(name.replace("_", "").isalnum() for name in folders)
    assert not folder.keep("A", first).new
    assert folder.count() == len(names)
    data = load(str(tmp_path / "kept"), "test")
    assert data.classes == names
    assert [data.images[list(data.labels).index(label)].tobytes() for label in (0, 1)] == [first, second]
    assert open_glyph_folder(tmp_path / "kept", names).count() == len(names)


def test_a_slip_is_put_right_by_the_next_mark(tmp_path: Path) -> None:
    glyph, folder = digits().images[0].tobytes(), open_glyph_folder(tmp_path / "kept", ("A", "a"))
    folder.keep("A", glyph)
    again = folder.keep("a", glyph)
    assert (again.new, again.instead, folder.count()) == (True, "A", 1)
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["lower_a"]
    assert not (tmp_path / "kept" / "test" / "upper_A").exists(), "data sets have no empty folders"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own = next(tmp_path.rglob("*.png")).name
    (elsewhere / own).write_bytes(b"mine")
    (tmp_path / "kept" / "test" / "upper_A").symlink_to(elsewhere)
    with pytest.raises(StageError, match="is a link"):
        folder.keep("a", glyph)
    assert (elsewhere / own).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("B", digits().images[0].tobytes(), "no class 'B'"),
        ("../A", digits().images[0].tobytes(), "no class"),
        ("A", b"", "784 bytes, not 0"),
        ("A", digits().images[0].tobytes() + b"\0", "784 bytes, not 785"),
        ("A", bytes(784), "no glyph"),
        ("A", b"\xff" * 784, "no glyph"),
    ],
)
def test_other_classes_and_other_bytes_are_refused_and_leave_nothing(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = open_glyph_folder(tmp_path / "kept", ("A", "a"))
    with pytest.raises(UsageProblem, match=message):
        folder.keep(name, content)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "classes.json"]


def test_nothing_is_written_through_a_link_or_into_a_folder_of_other_things(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = open_glyph_folder(tmp_path / "kept", ("A", "a"))
    (tmp_path / "kept" / "test").mkdir()
    (tmp_path / "kept" / "test" / "upper_A").symlink_to(elsewhere)
    with pytest.raises(StageError, match="is a link"):
        folder.keep("A", digits().images[0].tobytes())
    assert not list(elsewhere.iterdir())
    with pytest.raises(UsageProblem, match="glyphs of other classes"):
        open_glyph_folder(tmp_path / "kept", ("a", "A"))
    (elsewhere / "mine.txt").write_text("mine")
    with pytest.raises(UsageProblem, match="give a new folder"):
        open_glyph_folder(elsewhere, ("A", "a"))
    assert [path.name for path in elsewhere.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"A": 1}', '{"A": "../x"}', '{"A": "x", "a": "X"}', '{"A": ""}'])
def test_a_list_of_classes_that_cannot_be_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(CorruptData, match=r"classes\.json"):
        load(str(tmp_path), "test")


def test_glyphs_of_one_class_are_no_test_set_yet(tmp_path: Path) -> None:
    folder = open_glyph_folder(tmp_path / "kept", ("A", "a"))
    folder.keep("a", digits().images[0].tobytes())
    with pytest.raises(EmptyData, match="single class, 'a'"):
        load(str(tmp_path / "kept"), "test")
