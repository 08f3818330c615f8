from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.dataset import Dataset
from calibration.sample import CalibrationSet, draw
from targets import catalog
from targets.artifact import Artifact, Format
from toolchain.core.errors import PolicyError, StageError
from toolchain.formats.graph import Values
from toolchain.quantize import quantize
from toolchain.quantize.calibrate import calibrated
from toolchain.quantize.ranges import BINS, Ranges, TensorStatistics, choose_range, collect_statistics, read_ranges
from toolchain.recipe import Calibration, Quantize, parse

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
FACTS = {"origin": "drawn/train", "images": 32, "seed": 0, "sha256": "0" * 64}
STATIC = Quantize(scheme="static-int8")


@pytest.fixture(scope="module")
def images(digits: Dataset, digits_test: Dataset) -> CalibrationSet:
    return draw(digits, 32, seed=0, exclude=digits_test)


@pytest.fixture(scope="module")
def saved(
    floats: dict[Format, Artifact], images: CalibrationSet, tmp_path_factory: pytest.TempPathFactory
) -> dict[Format, tuple[Path, Artifact]]:
    """A file of ranges in each format, and what was quantized with it."""
    folder = tmp_path_factory.mktemp("ranges")

    def made(kind: Format) -> tuple[Path, Artifact]:
        path = folder / f"{kind}.json"
        return path, quantize(floats[kind], STATIC, images, folder / f"q.{kind}", recipe="q", save_ranges=path)

    return {kind: made(kind) for kind in FORMATS}


def read(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    with catalog.default_for(artifact.format).open(artifact) as session:
        return session.run(images)


@pytest.mark.parametrize("method", ["min-max", "moving-average", "percentile", "entropy", "mse"])
def test_both_formats_get_the_same_ranges_by_the_same_rule(
    method: str, floats: dict[Format, Artifact], images: CalibrationSet, tmp_path: Path
) -> None:
    step = Quantize.model_validate({"scheme": "static-int8", "calibration": method})
    ranges_of = {kind: calibrated(floats[kind], step, images, tmp_path).ranges for kind in FORMATS}
    ends = {kind: [(one.low, one.high) for one in ranges.tensors] for kind, ranges in ranges_of.items() if ranges}
    # ONNX sees a tensor before each ReLU too, TFLite one after each padding.
    after_relu = [pair for pair in ends["onnx"] if pair[0] == 0]
    for pair in (ends["onnx"][0], *after_relu, ends["onnx"][-1]):
        assert np.abs(np.array(ends["tflite"]) - pair).max(1).min() < 0.01, (method, pair)
    assert len(after_relu) >= 5


@pytest.mark.parametrize("kind", FORMATS)
def test_ranges_that_were_kept_make_the_same_file_without_images(
    kind: Format, saved: dict[Format, tuple[Path, Artifact]], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    path, fresh = saved[kind]
    again = quantize(
        floats[kind], STATIC.model_copy(update={"ranges": str(path)}), None, tmp_path / f"again.{kind}", recipe="q"
    )
    if kind == "onnx":
        assert onnx.load(again.path).graph == onnx.load(fresh.path).graph
    else:
        assert again.path.read_bytes() == fresh.path.read_bytes()
    assert again.calibration == fresh.calibration
    assert any(f"from {path.name}" in note for note in again.notes)


def test_the_files_scales_are_those_of_the_ranges(
    saved: dict[Format, tuple[Path, Artifact]], floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    """Halve the range of what the last layer reads, and the runtime's step there halves."""
    from ai_edge_litert.interpreter import Interpreter

    path, fresh = saved["tflite"]
    ranges = read_ranges(path)
    name = ranges.tensors[-2].name
    half = [
        one.model_copy(update={"low": one.low / 2, "high": one.high / 2}) if one.name == name else one
        for one in ranges.tensors
    ]
    changed = tmp_path / "half.json"
    ranges.model_copy(update={"tensors": tuple(half)}).save(changed)
    step = STATIC.model_copy(update={"ranges": str(changed)})
    made = quantize(floats["tflite"], step, None, tmp_path / "half.tflite", recipe="q")

    def scale(artifact: Artifact) -> float:
        details = Interpreter(str(artifact.path)).get_tensor_details()
        return next(float(one["quantization"][0]) for one in details if one["name"] == name)

    assert scale(made) == pytest.approx(scale(fresh) / 2, rel=1e-5)


def spoiled(path: Path, folder: Path, change: dict) -> Path:
    facts = json.loads(path.read_text())
    for key, value in change.items():
        if key in facts:
            facts[key] = value
        else:
            facts["tensors"][1][key] = value
    bad = folder / "bad.json"
    bad.write_text(json.dumps(facts))
    return bad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"low": float("nan")}, "NaN is not valid JSON", id="NaN"),
        pytest.param({"high": float("inf")}, "Infinity is not valid JSON", id="infinity"),
        pytest.param(
            {"calibration": {"images": float("nan")}}, "NaN is not valid JSON", id="row35-NaN in facts of images"
        ),
        pytest.param({"low": 2.0, "high": 1.0}, "must include 0", id="inverted"),
        pytest.param({"low": 0, "high": 0}, "leaves no steps", id="no width"),
        pytest.param({"high": 1e30}, "1e+30], and its values lay in", id="far beyond its values"),
        pytest.param({"highest": 1e30}, "reaches to 1.0e+30, over which", id="values that cannot be"),
        pytest.param({"zeros": 0, "counts": [0] * 128}, "no values", id="an empty histogram"),
        pytest.param({"counts": [10**400] * 128}, "counts", id="counts beyond every integer"),
        pytest.param({"calibration": {}}, "do not hold origin, images, seed, sha256", id="no facts"),
        pytest.param({"calibration": FACTS | {"images": -5}}, "they name -5 images", id="-5 images"),
        pytest.param({"calibration": FACTS | {"images": "5"}}, "do not hold images", id="images as text"),
        pytest.param({"calibration": FACTS | {"seed": -1}}, "the seed -1", id="a seed below 0"),
        pytest.param({"calibration": FACTS | {"sha256": "x"}}, "no SHA-256", id="no digest"),
        pytest.param({"percentile": 99.0}, "does not go with the method min-max", id="percentile of min-max"),
        pytest.param({"name": "other"}, "has no range for", id="another tensor"),
        pytest.param({"source_sha256": "0" * 64}, "holds the ranges of digits.float.onnx", id="another file"),
        pytest.param({"schema": "glyphpress/ranges/9"}, "update glyphpress", id="another version"),
        pytest.param({"tensors": []}, "tensors", id="empty"),
    ],
)
def test_ranges_that_cannot_be_meant_are_refused_in_one_line(
    change: dict,
    message: str,
    saved: dict[Format, tuple[Path, Artifact]],
    floats: dict[Format, Artifact],
    tmp_path: Path,
) -> None:
    bad = spoiled(saved["onnx"][0], tmp_path, change)
    step = STATIC.model_copy(update={"ranges": str(bad)})
    with pytest.raises(StageError) as refused:
        quantize(floats["onnx"], step, None, tmp_path / "x.onnx", recipe="q")
    assert message in str(refused.value)
    assert "bad.json" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.onnx").exists()


def test_a_file_that_is_not_there_or_no_json_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="--save-ranges` writes one"):
        read_ranges(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"schema": ')
    with pytest.raises(StageError, match=r"broken\.json: no usable ranges"):
        read_ranges(tmp_path / "broken.json")


def test_what_is_written_reads_back(saved: dict[Format, tuple[Path, Artifact]], tmp_path: Path) -> None:
    ranges = read_ranges(saved["onnx"][0])
    ranges.save(tmp_path / "copy.json")
    assert read_ranges(tmp_path / "copy.json") == ranges
    assert isinstance(ranges, Ranges)


QUANTIZE = '[[steps]]\nkind = "quantize"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('scheme = "static-int8"\npercentile = 99.0', "does not apply", id="percentile of min-max"),
        pytest.param('scheme = "dynamic-int8"\ncalibration = "mse"', "has no ranges", id="dynamic with ranges"),
        pytest.param('scheme = "weight-int8"\nbias_correction = true', "has no ranges", id="bias of weights alone"),
        pytest.param('scheme = "static-int8"\nranges = "r.json"\ncalibration = "mse"', "r.json", id="both"),
        pytest.param('scheme = "static-int8"\nranges = "r.json"', "belong to one file", id="ranges for two formats"),
        pytest.param('scheme = "static-int8"\ncalibration = "minmax"', "min-max", id="unknown method"),
    ],
)
def test_a_recipe_whose_words_on_ranges_mean_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        parse(f'name = "a"\n{QUANTIZE}{text}', "mine.toml")


@pytest.mark.parametrize("kind", FORMATS)
def test_corrected_biases_take_the_mean_error_away(
    kind: Format,
    saved: dict[Format, tuple[Path, Artifact]],
    floats: dict[Format, Artifact],
    images: CalibrationSet,
    digits_test: Dataset,
    tmp_path: Path,
) -> None:
    step = STATIC.model_copy(update={"bias_correction": True})
    mended = quantize(floats[kind], step, images, tmp_path / f"mended.{kind}", recipe="q")
    base = read(floats[kind], digits_test.images)
    plain, less = (np.abs((read(one, digits_test.images) - base).mean(0)).mean() for one in (saved[kind][1], mended))
    assert less < 0.5 * plain
    assert mended.size < 1.01 * saved[kind][1].size
    assert any("biases of 7 of 7 layers" in note for note in mended.notes)


def test_ranges_are_shown_and_drawn(glyphpress, saved: dict[Format, tuple[Path, Artifact]], tmp_path: Path) -> None:
    path, picture = saved["tflite"][0], tmp_path / "ranges.svg"
    done = glyphpress("ranges", path, "-o", picture)
    assert done.code == 0, done.err
    tensors = read_ranges(path).tensors
    assert all(one.name in done.out for one in tensors)
    short = glyphpress("ranges", saved["onnx"][0])
    assert ": features.conv1 Relu" in short.out, "the short names of an .onnx say nothing by themselves"
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    assert all(one.name in drawn for one in tensors)
    assert json.loads(glyphpress("ranges", path, "--json").out)["schema"] == "glyphpress/ranges/1"
    again, other = glyphpress("ranges", path, "-o", picture), glyphpress("ranges", path, "-o", tmp_path / "a.png")
    assert (again.code, other.code) == (2, 2)
    assert "--force" in again.err
    assert ".svg" in other.err


def test_the_command_keeps_ranges_and_takes_them_again(
    glyphpress, floats: dict[Format, Artifact], tmp_path: Path
) -> None:
    source, saved = floats["onnx"].path, tmp_path / "kept.json"
    arguments = (
        "quantize",
        source,
        "-o",
        tmp_path / "a.onnx",
        "--data",
        "builtin:digits",
        "--calibration-images",
        "20",
    )
    done = glyphpress(*arguments, "--calibration", "percentile", "--percentile", "99", "--save-ranges", saved)
    assert done.code == 0, done.err
    assert (read_ranges(saved).method, read_ranges(saved).percentile) == ("percentile", 99)
    done = glyphpress("quantize", source, "-o", tmp_path / "b.onnx", "--ranges", saved)
    assert done.code == 0, done.err
    assert onnx.load(tmp_path / "a.onnx").graph == onnx.load(tmp_path / "b.onnx").graph
    few = glyphpress(
        "quantize", source, "-o", tmp_path / "c.onnx", "--data", "builtin:digits", *("--calibration-images", "9")
    )
    assert few.code == 2
    assert "9 images leave out some of the 10 classes" in few.err


def test_a_press_with_too_few_images_ends_before_it_begins(glyphpress, tmp_path: Path) -> None:
    recipe = tmp_path / "few.toml"
    recipe.write_text(f'name = "few"\n{QUANTIZE}scheme = "static-int8"\ncalibration_images = 9\n')
    done = glyphpress(
        "press", "no-such-model.pt", "--data", "builtin:digits", "--recipe", recipe, "--out", tmp_path / "out"
    )
    # The checkpoint is not even looked for.
    assert "9 images leave out some of the 10 classes" in done.err
    assert not (tmp_path / "out").exists()


def test_a_quantized_file_is_not_calibrated(
    saved: dict[Format, tuple[Path, Artifact]], images: CalibrationSet, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="is quantized already"):
        calibrated(replace(saved["tflite"][1]), STATIC, images, tmp_path)


METHODS: tuple[Calibration, ...] = ("min-max", "moving-average", "percentile", "entropy", "mse")


def statistics_of(*images: np.ndarray) -> TensorStatistics:
    def run() -> Iterator[Values]:
        yield from ({"x": image.astype(np.float32)} for image in images)

    return collect_statistics(run, "m.onnx")["x"]


def bounds(values: np.ndarray, method: Calibration, percentile: float = 99.0) -> tuple[float, float]:
    return choose_range(statistics_of(values), method, percentile=percentile, levels=256)


def rounded_error(values: np.ndarray, low: float, high: float) -> float:
    """As onnxruntime and LiteRT round, written anew."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    back = (np.clip(np.rint(values / scale + zero), 0, 255) - zero) * scale
    return float(np.square(values - back).mean())


NORMAL = np.random.default_rng(0).normal(0, 1, 200_000)
RELU = np.maximum(NORMAL, 0)


def test_every_value_is_in_its_bin_and_zeros_are_apart() -> None:
    statistics = statistics_of(np.array([[-1.0, 0.0, 0.0]]), np.array([[3.0, 2.999, 0.0]]))
    assert (statistics.lowest, statistics.highest, statistics.zeros) == (-1, 3, 3)
    assert statistics.counts.sum() == 3
    assert (statistics.counts[0], statistics.counts[-1]) == (1, 2)
    assert np.isclose(statistics.edges[1] - statistics.edges[0], 4 / BINS)


def test_moving_average_follows_each_images_extremes() -> None:
    chosen = choose_range(
        statistics_of(*(np.array([-x, x]) for x in (1.0, 2.0, 10.0))), "moving-average", percentile=99, levels=256
    )
    assert chosen[1] == pytest.approx(0.95 * (0.95 * 1 + 0.05 * 2) + 0.05 * 10)
    assert chosen[0] == -chosen[1]


@pytest.mark.parametrize("values", [NORMAL, RELU], ids=["signed", "relu"])
@pytest.mark.parametrize("percentile", [90.0, 99.9])
def test_percentile_is_that_of_all_values(values: np.ndarray, percentile: float) -> None:
    tail = (100 - percentile) / 2
    exact = np.percentile(values, [tail, 100 - tail])
    assert bounds(values, "percentile", percentile) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("values", [NORMAL, RELU, -RELU], ids=["signed", "relu", "negative"])
def test_mse_rounds_real_values_better_than_their_extremes_do(values: np.ndarray) -> None:
    widest = rounded_error(values, min(values.min(), 0), max(values.max(), 0))
    assert rounded_error(values, *bounds(values, "mse")) < 0.95 * widest


def test_entropy_gives_up_an_outlier_and_nothing_of_an_even_spread() -> None:
    low, high = bounds(np.append(NORMAL, 40.0), "entropy")
    assert -10 < low < -2
    assert 2 < high < 10
    assert bounds(np.linspace(0.001, 5, 100_000), "entropy") == pytest.approx((0, 5), abs=0.01)


@settings(max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.sampled_from(METHODS),
    st.sampled_from([256, 65536]),
)
def test_a_range_holds_zero_and_nothing_that_was_never_seen(
    values: list[float], method: Calibration, levels: int
) -> None:
    low, high = choose_range(statistics_of(np.array(values)), method, percentile=99, levels=levels)
    if any(values):
        assert min(*values, 0) - 1e-6 <= low <= 0 <= high <= max(*values, 0) + 1e-6
    else:
        assert (low, high) == (0, 1)


def test_a_tensor_that_is_not_finite_is_named() -> None:
    with pytest.raises(StageError, match=r"m\.onnx: tensor x holds NaN"):
        statistics_of(np.array([1.0, np.nan]))
