"""Files that are not the model they are said to be: one line, what is wrong and what to do."""

from __future__ import annotations

import gzip
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from targets.preprocess import Preprocess
from tests.conftest import Finished
from tests.fixtures.checkpoint_files import DIGITS, NET, net_file
from tests.fixtures.lazy import torch
from toolchain import models
from toolchain.checkpoint import load
from toolchain.checkpoint.source import build_from, parse_source
from toolchain.core.errors import CheckpointError, UsageProblem


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"{net_file(tmp_path)}:Net"


@pytest.fixture
def saved(source: str, tmp_path: Path) -> Path:
    torch.save(build_from(parse_source(source)).state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def refusal(path: object, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(str(path), **{"classes": DIGITS, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_names_its_neighbour(saved: Path) -> None:
    assert "no such file (there is net.pt" in refusal(saved.with_name("nett.pt"))


def test_a_folder_an_empty_file_and_a_text_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("epoch,loss\n1,0.3\n")
    (tmp_path / "bytes.pt").write_bytes(bytes(range(200, 256)))
    assert "is a folder" in refusal(tmp_path)
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.pt")
    assert "begins with text" in refusal(tmp_path / "text.pt")
    assert "begins with bytes c8 c9" in refusal(tmp_path / "bytes.pt")


@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_file_that_was_cut_off_is_damaged(share: float, saved: Path, source: str) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    assert "cut off or damaged" in refusal(saved, model=source)


def test_a_cut_off_safetensors_and_a_foreign_zip(tmp_path: Path) -> None:
    import zipfile

    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(100)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-40])
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "damaged .safetensors" in refusal(tmp_path / "a.safetensors")
    assert "zip archive without a torch model" in refusal(tmp_path / "b.pt")


def test_weights_alone_need_the_class(saved: Path) -> None:
    assert "--model FILE.py:CLASS" in refusal(saved)


def test_a_checkpoint_of_another_model_lists_keys(saved: Path, source: str, tmp_path: Path) -> None:
    torch.save(models.build("cnn-small", 10).state_dict(), tmp_path / "other.pt")
    message = refusal(tmp_path / "other.pt", model=source)
    assert "not a checkpoint of Net" in message
    assert "missing conv.weight" in message
    assert "unexpected" in message
    assert " more" in message


def test_wrong_shapes_name_both_and_the_argument(saved: Path, source: str) -> None:
    message = refusal(saved, model=source + "(classes=47)", classes=tuple(map(str, range(47))))
    assert "head.weight is [10, 1352], the model wants [47, 1352]" in message
    assert 'the file has 10 where the model has 47; build it with 10: --model "FILE.py:Net(classes=10)"' in message


def test_a_wrong_class_count_says_whose_width_it_is(saved: Path, source: str) -> None:
    message = refusal(saved, model=source, classes=tuple(map(str, range(47))))
    assert "answers 10 columns, but there are 47 classes" in message
    assert "digits or mnist" in message


def test_a_wrong_label_offset_is_a_wrong_width(saved: Path, source: str) -> None:
    assert "from label offset 1 on" in refusal(saved, model=source, preprocess=Preprocess(label_offset=1))


def test_classes_in_the_file_must_be_those_of_the_data(tmp_path: Path) -> None:
    facts = {"model": "cnn-small", "classes": list(DIGITS)}
    torch.save(facts | {"state_dict": models.build("cnn-small", 10).state_dict()}, tmp_path / "m.pt")
    assert "trained on 10 classes, the data has 3" in refusal(tmp_path / "m.pt", classes=("0", "1", "2"))
    assert "class 0 is '0' in the checkpoint and 'a'" in refusal(tmp_path / "m.pt", classes=tuple("abcdefghij"))


def test_without_any_classes_the_option_is_named(saved: Path, source: str) -> None:
    assert "--classes" in refusal(saved, model=source, classes=())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Broken", "NaN or infinity"),
        ("Twins", "outputs 0, 1 all have width 10, and none is the softmax of another"),
        ("Raises", "cannot be built (ValueError"),
    ],
)
def test_models_whose_answer_is_unusable(name: str, expected: str, saved: Path, tmp_path: Path) -> None:
    assert expected in refusal(saved, model=f"{tmp_path}/net.py:{name}")


def test_a_wrong_input_shape_says_what_is_fed(source: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text().replace("nn.Conv2d(3,", "nn.Conv2d(5,"))
    wide = f"{tmp_path}/net.py:Wide"
    torch.save(build_from(parse_source(wide)).state_dict(), tmp_path / "wide.pt")
    message = refusal(tmp_path / "wide.pt", model=wide)
    assert "does not take float32 [N, 1, 28, 28]" in message
    assert "5 channels" in message


class Planted:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = str(where)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.where,)


def test_pickled_code_is_not_run_and_the_error_says_why(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "extra": Planted(tmp_path / "ran")}, tmp_path / "evil.pt")
    message = refusal(tmp_path / "evil.pt")
    assert "runs whatever code" in message
    assert "--trust-pickle" in message
    assert not (tmp_path / "ran").exists()


def _quantized(path: Path) -> None:
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.ao.quantization.quantize_dynamic(layers, {torch.nn.Linear}).state_dict(), path)


def _quantized_whole(path: Path) -> None:
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.ao.quantization.quantize_dynamic(layers, {torch.nn.Linear}), path)


def _classifier() -> Any:
    from sklearn.svm import SVC

    return SVC().fit(np.eye(10, 784), np.arange(10))


def _joblib(path: Path) -> None:
    import joblib

    joblib.dump(_classifier(), path)


STRANGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "quantized-state": (_quantized, "is quantized already (torch._utils._rebuild_qtensor); give the float model"),
    "quantized-whole": (_quantized_whole, "is quantized already (torch.ao.nn.quantized.dynamic"),
    "svm-pickled": (
        lambda path: path.write_bytes(pickle.dumps(_classifier())),
        "holds a sklearn.svm._classes.SVC, and",
    ),
    "svm-protocol-2": (
        lambda path: path.write_bytes(pickle.dumps(_classifier(), 2)),
        "glyphpress train --data SPEC",
    ),
    "svm-joblib": (_joblib, "holds a sklearn.svm._classes.SVC, and no pickle of a learner is opened"),
    "svm-by-torch": (lambda path: torch.save({"model": _classifier()}, path), "holds a sklearn.svm._classes.SVC, and"),
    "numpy": (lambda path: path.write_bytes(pickle.dumps({"w": np.zeros(9)})), "torch.from_numpy(array)"),
    "npy": (lambda path: np.save(path.open("wb"), np.zeros(3)), "torch.from_numpy(array)"),
    "module-pickled": (lambda path: path.write_bytes(pickle.dumps(torch.nn.Linear(3, 3))), "without torch.save"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "convert it with tf2onnx"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"model")), "is compressed"),
}


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("kind", STRANGERS)
def test_row42_what_torch_did_not_write_is_told_the_truth(kind: str, trusted: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    write, expected = STRANGERS[kind]
    write(path)
    message = refusal(path, trust_pickle=trusted)
    assert expected in message
    assert "--model" not in message


def test_row42_the_number_of_outputs_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        NET.replace("classes=10, extra", "dropout=0.1, n_labels=10, extra").replace("13, classes)", "13, n_labels)")
    )
    torch.save(build_from(parse_source(f"{tmp_path}/user.py:Net(n_labels=62)")).state_dict(), tmp_path / "n.pt")
    message = refusal(tmp_path / "n.pt", model=f"{tmp_path}/user.py:Net(n_labels=47)")
    assert 'has 62 where the model has 47; build it with 62: --model "FILE.py:Net(n_labels=62)"' in message
    torch.save(models.build("cnn-small", 62).state_dict(), tmp_path / "ours.pt")
    assert "it was trained on 62 classes, not 10; give their --data" in refusal(tmp_path / "ours.pt", model="cnn-small")


def test_row42_a_missing_argument_is_named(saved: Path, tmp_path: Path) -> None:
    assert 'net.py:make(classes=10)"' in refusal(saved, model=f"{tmp_path}/net.py:make")


def test_row42_a_quantized_state_is_inspected(tmp_path: Path) -> None:
    from toolchain.checkpoint.inspection import inspect_file

    _quantized(tmp_path / "q.pt")
    assert inspect_file(str(tmp_path / "q.pt")).bytes_by_dtype["qint8"] == 7840


def test_no_weights_in_the_file_lists_what_is_there(tmp_path: Path, source: str) -> None:
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
    torch.save({}, tmp_path / "nothing.pt")
    assert "holds epoch, loss, but no weights; save" in refusal(tmp_path / "log.pt", model=source)
    assert "holds nothing" in refusal(tmp_path / "nothing.pt", model=source)


@pytest.mark.parametrize(
    "option", ["net.py", "net.py:", ":Net", "net.py:Net(x)", "net.py:Net(open('a'))", "a:b:c(*[1])"]
)
def test_values_of_model_that_cannot_be_meant(option: str) -> None:
    with pytest.raises(UsageProblem, match="--model"):
        parse_source(option)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("net.py:Nett", "has no 'Nett'; it has Net"),
        ("net.py:number", "has no 'number'"),
        ("missing.py:Net", "cannot be imported (FileNotFoundError"),
        ("no_such_module_here:Net", "cannot be imported (ModuleNotFoundError"),
        ("broken.py:Net", "cannot be imported (SyntaxError"),
        ("net.py:make", "make(classes) cannot be built (TypeError"),
    ],
)
def test_sources_that_hold_no_such_model(option: str, expected: str, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("class Net(:\n")
    model = f"{tmp_path}/{option}" if ".py" in option else option
    assert expected in refusal(saved, model=model)


@pytest.mark.parametrize(
    ("option", "path"), [("nets:Net(3)", "nets.py"), ("mine.nets:Net", "mine/nets.py"), ("json:Net", "json.py")]
)
@pytest.mark.parametrize("command", ["inspect", "export"])
def test_row18_a_module_that_is_a_file_here_is_answered_with_its_path(
    option: str,
    path: str,
    command: str,
    saved: Path,
    tmp_path: Path,
    glyphpress: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path(path).write_text("class Net: pass\n")
    done = glyphpress(
        command, saved, "--model", option, *(["--classes", "0123456789", "-o", "a.onnx"] if command == "export" else [])
    )
    assert done.code == 3
    assert done.err.endswith(f"for the file {path} write --model {path}:Net\n")
    assert done.err.count("\n") == 1


def test_options_of_preprocess_and_auto_exclude_each_other() -> None:
    import rich_click as click

    from toolchain.cli.checkpoint_options import checkpoint_options

    @click.command()
    @checkpoint_options
    def command(request: Any) -> None:
        click.echo(f"{request.preprocess} {request.search} {request.classes}")

    assert CliRunner().invoke(command, ["--preprocess", "auto", "--invert"]).exit_code == 2
    assert CliRunner().invoke(command, ["--classes", "a,b,a"]).exit_code == 2
    said = CliRunner().invoke(command, ["--orientation", "rot90", "--mean", "0.5", "--classes", "012"]).output
    assert "rot90, 0 to 1, mean 0.5 std 1" in said
    assert "('0', '1', '2')" in said
    assert CliRunner().invoke(command, []).output.strip() == "None None ()"


def test_a_name_that_is_nearly_one_of_ours_is_answered_with_it() -> None:
    with pytest.raises(UsageProblem, match="did you mean cnn-small"):
        load("cnn-smal", classes=tuple("0123456789"))
