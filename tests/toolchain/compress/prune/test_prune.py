from __future__ import annotations

import copy
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from calibration.dataset import Dataset
from targets.artifact import Artifact, Format
from targets.preprocess import Preprocess
from tests.fixtures.lazy import functional, nn, torch
from toolchain.checkpoint import CheckpointRequest, load, settle
from toolchain.checkpoint.float_model import FloatModel, OnnxModel, TorchModel
from toolchain.checkpoint.inspection import counted
from toolchain.compress import weights
from toolchain.compress.prune import prune
from toolchain.compress.prune.graph import ChannelGraph
from toolchain.compress.prune.structured import channel_scores
from toolchain.compress.prune.unstructured import n_of_m, outputs_first
from toolchain.core.context import RunContext
from toolchain.core.errors import StageError, UsageProblem
from toolchain.export import export, reference_logits
from toolchain.recipe import Prune
from toolchain.training.fit import accuracy

ONE_THREAD = RunContext(threads=1)


def widths(module: nn.Module) -> list[int]:
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_channels_go_the_logits_stay_and_fine_tuning_brings_the_reading_back(
    float_model: FloatModel, digits: Dataset, digits_test: Dataset
) -> None:
    bare = prune(float_model, Prune(ratio=0.5, epochs=0), digits, context=ONE_THREAD)
    tuned = prune(float_model, Prune(ratio=0.5, epochs=4), digits, context=ONE_THREAD)
    before, after = widths(float_model.torch_module("the test")), widths(bare.torch_module("the test"))
    assert all(width % 8 == 0 for width in after)
    assert sum(after) <= 0.55 * sum(before)
    assert bare.torch_module("the test")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    share = [accuracy(model.torch_module("the test"), digits_test, model.preprocess) for model in (bare, tuned)]
    assert share[1] > 0.9
    assert share[1] > share[0]
    assert "pruned 50% of the channels" in tuned.history[-1]


def test_the_model_that_was_given_stays_as_it_is(float_model: FloatModel, digits: Dataset) -> None:
    module = float_model.torch_module("the test")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    prune(float_model, Prune(ratio=0.25, epochs=1), digits, context=ONE_THREAD)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_same_seed_prunes_the_same(float_model: FloatModel, digits: Dataset) -> None:
    one, two = (
        prune(float_model, Prune(ratio=0.25, epochs=1), digits, context=RunContext(seed=3, threads=1)) for _ in range(2)
    )
    pairs = zip(
        one.torch_module("the test").state_dict().values(),
        two.torch_module("the test").state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_pruned_model_is_exported_with_its_own_shapes(float_model: FloatModel, digits: Dataset, tmp_path) -> None:
    pruned = prune(float_model, Prune(ratio=0.5, epochs=0), digits, context=ONE_THREAD)
    whole = export(float_model, "onnx", tmp_path / "whole.onnx")
    assert export(pruned, "onnx", tmp_path / "pruned.onnx").size < 0.4 * whole.size


def parameters(model: FloatModel) -> int:
    return sum(p.numel() for p in model.torch_module("the test").parameters())


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l1", "taylor", "bn-scale", "hessian"])
def test_every_importance_keeps_another_set_of_channels_than_l2(
    importance: str, float_model: FloatModel, digits: Dataset
) -> None:
    step = Prune(ratio=0.25, epochs=0, scope="global")
    plain = prune(float_model, step, digits, context=ONE_THREAD)
    other = prune(float_model, step.model_copy(update={"importance": importance}), digits, context=ONE_THREAD)
    one, two = (model.torch_module("the test").state_dict()["features.conv1.weight"] for model in (plain, other))
    assert one.shape != two.shape or not torch.equal(one, two) or parameters(plain) != parameters(other)
    again = prune(float_model, step.model_copy(update={"importance": importance}), digits, context=ONE_THREAD)
    assert torch.equal(two, again.torch_module("the test").state_dict()["features.conv1.weight"])


def test_hessian_is_the_mean_over_single_images(
    float_model: FloatModel, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch-pruning's own sum over images keeps the last one alone.
    monkeypatch.setattr("toolchain.compress.prune.structured.GRADIENT_IMAGES", 3)
    graph = ChannelGraph(copy.deepcopy(float_model.torch_module("the test")), "digits")
    scores = channel_scores(graph, graph.channels, "hessian", digits, float_model.preprocess, seed=4)
    chosen = np.random.default_rng(4).permutation(len(digits))[:3]
    module = graph.module
    total = torch.zeros_like(module.classifier.weight)
    for index in chosen:
        pixels = torch.from_numpy(float_model.preprocess.apply(digits.images[[index]]))
        loss = functional.cross_entropy(module(pixels), torch.tensor([digits.labels[index]]), label_smoothing=0.1)
        total += torch.autograd.grad(loss, module.classifier.weight)[0].square() / 3
    assert torch.allclose(module.classifier.weight.grad, total, rtol=1e-4, atol=1e-9)
    assert len(scores["features.conv5"]) == 128


@pytest.mark.parametrize(
    ("budget", "most"), [({"macs": 3_000_000}, 3e6), ({"parameters": 60_000}, 6e4), ({"bytes": 2e5}, 5e4)]
)
def test_a_budget_is_met_and_not_by_far(
    budget: dict[str, float], most: float, float_model: FloatModel, digits: Dataset
) -> None:
    step = Prune.model_validate(budget | {"epochs": 0})
    pruned = prune(float_model, step, digits, context=ONE_THREAD)
    reached, macs = counted(pruned)
    got = macs if "macs" in budget else reached
    assert 0.75 * most < got <= most
    rounds = prune(
        float_model, step.model_copy(update={"iterations": 2, "scope": "global"}), digits, context=ONE_THREAD
    )
    got = counted(rounds)["macs" in budget]
    assert 0.7 * most < got <= most
    assert "in each of 2 rounds" in rounds.history[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": 100}, "cannot be pruned to 100 parameters: 2,818 are the least"),
        ({"macs": 10**9}, "already, within the 1,000,000,000 asked for"),
        ({"ratio": 0.01}, "no channel can be removed, because 8 or a multiple of it must stay"),
        ({"layers": {"features.conv2": 0.01}}, r"no channel can be removed, .*features.conv2 has 48"),
        ({"method": "magnitude", "layers": {"conv1": 0.5}}, "did you mean features.conv1"),
        ({"method": "magnitude", "ratio": 1e-9}, "this ratio removes no weight"),
    ],
)
def test_what_cannot_be_reached_is_said_before_any_training(
    settings: dict[str, object], message: str, float_model: FloatModel, digits: Dataset
) -> None:
    def never(_label: str, _done: int, _total: int) -> None:
        pytest.fail("it trained")

    with pytest.raises(UsageProblem, match=message):
        prune(float_model, Prune.model_validate(settings), digits, context=RunContext(threads=1, progress=never))


def test_weights_that_were_cut_are_positive_zeros(float_model: FloatModel, digits: Dataset) -> None:
    """Zeros of both signs are equal to every reader of numbers, but a packed file is ten times larger for them."""
    pruned = prune(float_model, Prune(method="magnitude", ratio=0.7, epochs=0), digits, context=RunContext(threads=1))
    weights = torch.cat([weight.flatten() for weight in pruned.module.parameters()])
    assert (weights == 0).sum() > 0.6 * len(weights)
    assert not weights[weights == 0].signbit().any()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"ratio": 0.7}, {"ratio": 0.7, "scope": "global", "iterations": 2}])
def test_weights_that_became_zero_stay_zero_while_the_others_are_tuned(
    settings: dict[str, object],
    float_model: FloatModel,
    floats: dict[Format, Artifact],
    digits: Dataset,
    tmp_path: Path,
) -> None:
    step = Prune.model_validate({"method": "magnitude", "epochs": 1} | settings)
    pruned = prune(float_model, step, digits, context=ONE_THREAD)
    before, after = (weights(model.torch_module("the test")) for model in (float_model, pruned))
    zeros = {name: int((layer.weight == 0).sum()) for name, (layer, _) in after.items()}
    total = sum(layer.weight.numel() for layer, _ in after.values())
    assert sum(zeros.values()) == pytest.approx(0.7 * total, abs=len(zeros))
    if step.scope == "layer":
        assert all(zeros[name] == round(0.7 * layer.weight.numel()) for name, (layer, _) in after.items())
    tuned = after["classifier"][0].weight
    assert not torch.equal(tuned[tuned != 0], before["classifier"][0].weight[tuned != 0])
    assert "zeroed 70.0% of" in pruned.history[-1]
    assert "neither smaller nor faster until it is packed" in pruned.history[-1]
    assert copy.deepcopy(pruned.torch_module("the test")).classifier.weight.count_nonzero() == tuned.count_nonzero()
    assert export(pruned, "onnx", tmp_path / "pruned.onnx").size == pytest.approx(floats["onnx"].size, rel=0.01)


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([(2, 4), (1, 4), (1, 2), (3, 8)]),
    st.sampled_from([(), (3, 3)]),
    st.integers(0, 99),
)
def test_of_each_m_weights_along_the_inputs_the_n_largest_stay(
    outputs: int, parts: int, pattern: tuple[int, int], kernel: tuple[int, ...], seed: int
) -> None:
    stay, of = pattern
    values = torch.randn(outputs, parts * of, *kernel, generator=torch.Generator().manual_seed(seed))
    mask = n_of_m(values, stay, of)
    assert mask is not None
    blocks = mask.movedim(1, -1).reshape(-1, of)
    assert (blocks.sum(1) == stay).all()
    sizes = values.abs().movedim(1, -1).reshape(-1, of)
    assert (sizes.masked_fill(~blocks, torch.inf).amin(1) >= sizes.masked_fill(blocks, 0).amax(1)).all()
    assert n_of_m(torch.randn(outputs, parts * of + 1, *kernel), stay, of) is None


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_a_transposed_convolution_is_seen_from_its_outputs(groups: int, inputs: int, outputs: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.ConvTranspose2d(groups * inputs, groups * outputs, 3, groups=groups, bias=False)
    turned = outputs_first(layer, layer.weight)
    assert torch.equal(outputs_first(layer, turned), layer.weight)
    # A stride of 1 makes it a convolution with the kernel turned round.
    image = torch.randn(1, groups * inputs, 5, 5)
    plain = nn.functional.conv2d(image, turned.flip(2, 3), padding=2, groups=groups)
    torch.testing.assert_close(layer(image), plain)


def test_two_of_four_leaves_whole_what_it_does_not_fit_and_says_so(float_model: FloatModel, digits: Dataset) -> None:
    pruned = prune(float_model, Prune(method="n:m", epochs=1), digits, context=ONE_THREAD)
    layers = weights(pruned.torch_module("the test"))
    assert (layers["features.conv2"][0].weight.movedim(1, -1).reshape(-1, 4) == 0).sum(1).min() >= 2
    assert "left whole: features.conv1, features.pool (inputs no multiple of 4)" in pruned.history[-1]


def test_what_cannot_be_pruned_is_refused_with_the_reason(float_model: FloatModel, digits: Dataset) -> None:
    class Tangled(nn.Module):
        """Has no layer whose channels could go."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.flatten(1)[:, :10]

    only_onnx = OnnxModel(
        "loop", Preprocess(), digits.classes, "0" * 64, ModelProto(), ModelProto(),
        refusal="operator Loop has no counterpart in torch",
    )  # fmt: skip
    with pytest.raises(StageError, match="pruning needs the model in torch: operator Loop"):
        prune(only_onnx, Prune(ratio=0.5), digits, context=RunContext())
    tangled = TorchModel("tangled", Preprocess(), digits.classes, "0" * 64, Tangled().eval())
    with pytest.raises(StageError, match="no Linear or Conv2d"):
        prune(tangled, Prune(ratio=0.5), digits, context=RunContext())


def test_a_test_split_is_never_fine_tuned_on(float_model: FloatModel, digits_test: Dataset) -> None:
    with pytest.raises(UsageProblem, match="test split"):
        prune(float_model, Prune(ratio=0.25, epochs=1), digits_test, context=RunContext())


def test_a_result_at_chance_is_warned_of(glyphpress: Callable, checkpoint: Path, tmp_path: Path) -> None:
    words = ("prune", checkpoint, "--data", "builtin:digits", "--epochs", "0", "-o", tmp_path / "p.pt2")
    done = glyphpress(*words, "--ratio", "99%")
    assert done.code == 0, done.err
    warning = next(line for line in done.out.splitlines() if line.startswith("warning: "))
    assert "which is not shown to be better than chance (10.18 %); remove less, or train it for more epochs" in warning
    done = glyphpress(*words, "--ratio", "10%", "--force", "--json")
    assert "warnings" not in json.loads(done.out)
    assert "to 1 multiply-accumulate: " in glyphpress(*words, "--macs", "1", "--force").err


def test_the_command_writes_a_program_that_the_press_reads_back(
    glyphpress, checkpoint, digits_test: Dataset, tmp_path
) -> None:
    out = tmp_path / "pruned.pt2"
    done = glyphpress("prune", checkpoint, "--data", "builtin:digits", "--ratio", "50%", "--epochs", "2", "-o", out)
    assert done.code == 0, done.err
    assert "parameters" in done.out
    comparison = re.search(r"against digits: ([0-9.]+) % equal .*accuracy ([0-9.]+) % before and ([0-9.]+) %", done.out)
    assert comparison, done.out
    before, after = (
        float((reference_logits(model, digits_test.images[:]).argmax(1) == digits_test.labels).mean()) * 100
        for model in (settle(str(path), CheckpointRequest(), None).model for path in (checkpoint, out))
    )
    assert [float(comparison[2]), float(comparison[3])] == pytest.approx([before, after], abs=0.01)
    assert f"on {len(digits_test):,} images of builtin:digits" in done.out
    with zipfile.ZipFile(out) as stored:
        (facts,) = (stored.read(name) for name in stored.namelist() if name.endswith("extra/glyphpress"))
    assert json.loads(facts)["compared"]["accuracy"] == pytest.approx(after / 100)
    assert "our compared" in (inspected := glyphpress("inspect", out).out)
    assert comparison[0] in inspected
    loaded = load(str(out))
    assert loaded.preprocess_known
    assert loaded.model.classes == digits_test.classes
    assert any("pruned 50%" in line for line in loaded.model.history)
    settled = settle(str(out), CheckpointRequest(), None).model
    pruned = export(settled, "onnx", tmp_path / "pruned.float.onnx")
    assert pruned.size < 400_000
    for arguments, message in (
        (("--ratio", "0%"), "--ratio"),
        (("--ratio", "100%"), "--ratio"),
        (("--ratio", "0.8"), "needs a number and a unit (%), such as 25%"),
        (("--macs", "0"), "--macs"),
        (("--macs", "2.5"), "--macs"),
        (("--parameters", "3MB"), "needs a number and a unit (k, M, or none), such as 3M"),
        (("--ratio", "10%", "--bytes", "100KB"), "exclude each other"),
        (("--layer", "conv1"), "write features.conv1=25%"),
        (("--layer", "features.conv1=150%"), "'150%' is not in the range; give more than 0% and less than 100%"),
        (("--method", "magnitude", "--macs", "9"), "--macs does not belong to --method magnitude"),
    ):
        wrong = glyphpress("prune", checkpoint, "--data", "builtin:digits", *arguments, "-o", tmp_path / "no.pt2")
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)
        assert message in wrong.err
    again = glyphpress("prune", checkpoint, "--data", "builtin:digits", "-o", out)
    assert again.code == 2
    assert "--force" in again.err
