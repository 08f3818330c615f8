"""Bars by layer: the worst and the slowest first, as long as their values."""

from __future__ import annotations

import pytest

from targets.session import Operator
from tests.fixtures.svg import HOSTILE, Picture
from toolchain.explain.explanation import Error, LayerError
from toolchain.report.charts.layers import layer_error_svg, operator_time_svg


def error(db: float | None) -> Error:
    return Error(1.0, 0.0 if db is None else 10 ** (-db / 20), 0.99, 0.01)


def layer(name: str, alone: float | None, whole: float | None = None) -> LayerError:
    weights = "float32" if alone is None else "int8"
    return LayerError(name, "Conv", weights, "int8", error(alone if whole is None else whole), error(alone), None)


def bars(picture: Picture) -> list[tuple[str, float, float]]:
    """Return the note, the start and the end of each bar from the top down."""
    found = []
    for group in picture.all("g"):
        rect = group.find("{*}rect")
        assert rect is not None
        left = float(rect.get("x", 0))
        found.append((float(rect.get("y", 0)), group[0].text or "", left, left + float(rect.get("width", 0))))
    return [one[1:] for one in sorted(found)]


@pytest.mark.parametrize("width", [358, 720])
def test_the_worst_layer_comes_first_and_bars_are_as_long_as_their_decibels(width: int) -> None:
    layers = [layer("conv1", 40.0, 38.0), layer("conv2", 10.0, 5.0), layer("fc", None), layer("conv3", 20.0)]
    picture = Picture(layer_error_svg(layers, width=width)).check()
    drawn = bars(picture)
    assert [note.partition(":")[0] for note, _, _ in drawn] == ["conv2", "conv3", "conv1"]
    lengths = [end - start for _, start, end in drawn]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.3)
    assert lengths[2] == pytest.approx(4 * lengths[0], abs=0.3)
    assert "alone 10.0 dB, with the layers before it 5.0 dB" in drawn[0][0]
    line = next(one for one in picture.all("g") if one[0].text.startswith("conv2"))[2].get("d", "")
    assert float(line[1:].split()[0]) == pytest.approx(drawn[0][1] + lengths[0] / 2, abs=0.3)
    assert "1 layer without an error: float, or exact." in picture.words
    assert "the worst first: conv2 with 10.0 dB" in picture.title


def test_a_layer_with_more_noise_than_signal_goes_to_the_left() -> None:
    drawn = bars(Picture(layer_error_svg([layer("bad", -10.0), layer("good", 20.0)])))
    (_, left, zero), (_, start, _) = drawn
    assert zero == pytest.approx(start, abs=0.2)
    assert left < zero


def test_long_names_that_differ_in_their_middle_still_differ() -> None:
    layers = [layer(f"features.block{k}.expand/Conv2D/kernel_with_a_long_end", 10.0 + k) for k in range(6)]
    picture = Picture(layer_error_svg(layers)).check()
    assert len({text for text in picture.words if "…" in text}) == 6


def test_slow_operators_come_first_with_their_share() -> None:
    operators = [Operator("Conv", "conv1", 10_000), Operator("Gemm", "fc", 70_000), Operator("Reorder", "", 5_000)]
    picture = Picture(operator_time_svg([*operators, *(Operator("Reorder", "", 5_000) for _ in range(3))])).check()
    drawn = bars(picture)
    assert [note for note, _, _ in drawn] == [
        "fc (Gemm) 70.0 us, 70 %",
        "Reorder x 4 20.0 us, 20 %",
        "conv1 (Conv) 10.0 us, 10 %",
    ]
    assert drawn[0][2] - drawn[0][1] == pytest.approx(7 * (drawn[2][2] - drawn[2][1]), abs=0.6)
    assert "100 us in all" in picture.title


def test_the_fastest_are_one_row() -> None:
    operators = [Operator("Conv", f"conv{k}", 1000.0 * (k + 1)) for k in range(20)]
    picture = Picture(operator_time_svg(operators, most=5)).check()
    assert bars(picture)[-1][0] == "15 others 120 us, 57 %"


@pytest.mark.parametrize(
    ("svg", "said"),
    [
        (layer_error_svg([]), "No layer has a quantization error"),
        (layer_error_svg([layer("a", None)]), "No layer has a quantization error"),
        (operator_time_svg([]), "No operator was timed."),
        (operator_time_svg([Operator("Conv", "a", 0.0)]), "No operator has a measured time."),
    ],
)
def test_nothing_to_draw_is_said(svg: str, said: str) -> None:
    assert said in " ".join(Picture(svg).check().words)


def test_hostile_names_stay_text() -> None:
    assert not Picture(layer_error_svg([layer(HOSTILE, 3.0)])).check().all("script")
    assert not Picture(operator_time_svg([Operator(HOSTILE, HOSTILE, 3.0)])).check().all("script")
