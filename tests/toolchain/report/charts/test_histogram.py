"""Histograms of calibration ranges: what is inside a range, and what it clips."""

from __future__ import annotations

import re

import pytest

from tests.fixtures.svg import HOSTILE, Picture
from toolchain.quantize.ranges import KEPT_BINS, Ranges, TensorRange
from toolchain.report.charts.histogram import ranges_svg

KEPT, CLIPPED = "var(--blue, #0072B2)", "var(--orange, #D55E00)"


def tensor(name: str, low: float, high: float, counts: dict[int, int], zeros: int = 0) -> TensorRange:
    """Return a tensor with values from -2 to 6; counts: by the number of the bin, a 16th wide."""
    bins = [counts.get(k, 0) for k in range(KEPT_BINS)]
    return TensorRange(name=name, low=low, high=high, lowest=-2.0, highest=6.0, zeros=zeros, counts=tuple(bins))


def ranges(*tensors: TensorRange) -> Ranges:
    facts = {"origin": "mine", "images": 8, "seed": 0, "sha256": "a" * 64}
    return Ranges(
        source="a.onnx", source_sha256="b" * 64, method="percentile", percentile=99, calibration=facts, tensors=tensors
    )


def bars(svg: str, colour: str) -> list[tuple[float, float, float]]:
    """Return the left end, the right end and the top of each bar of a colour."""
    found = []
    for path in Picture(svg).all("path", fill=colour):
        wide, tall, left, ground = (float(path.get("transform", "")[7:-1].split()[part]) for part in (0, 3, 4, 5))
        x = 0.0
        for kind, value in re.findall(r"([MVHh])([\d.]+)", path.get("d", "")):
            if kind == "V":
                top = ground + tall * float(value)
            elif kind != "M":
                end = x + float(value) if kind == "h" else float(value)
                found.append((left + wide * x, left + wide * end, top))
            x = x if kind == "V" else x + float(value) if kind == "h" else float(value)
    return found


@pytest.mark.parametrize("width", [358, 720])
def test_bars_stand_at_their_values_and_clipped_ones_differ(width: int) -> None:
    svg = ranges_svg(ranges(tensor("conv1", -1.0, 4.0, {0: 9, 32: 99, 48: 999, 112: 9})), width=width)
    picture = Picture(svg).check()
    kept, clipped = bars(svg, KEPT), bars(svg, CLIPPED)
    panel = 358 if width == 358 else (720 - 24) / 2
    assert [left for left, _, _ in kept] == pytest.approx([panel / 4, panel * 3 / 8], abs=0.2)
    assert [left for left, _, _ in clipped] == pytest.approx([0, panel * 7 / 8], abs=0.2)
    (ground,) = {float(one) for one in re.findall(r"matrix\(.* ([\d.]+)\)", svg)}
    heights = [ground - top for _, _, top in (*clipped[:1], *kept)]
    assert heights == pytest.approx([80 / 3, 160 / 3, 80], abs=0.3), "by the logarithm"
    assert "clipped 1.61%" in " ".join(picture.words)
    assert picture.all("path", stroke_opacity="0.5"), "the hatched ground"
    assert "1 of them clip values, most of all conv1 1.61%" in picture.title


def test_neighbours_share_an_outline_and_a_range_without_loss_has_no_hatch() -> None:
    svg = ranges_svg(ranges(tensor("conv1", -2.0, 6.0, {k: k + 1 for k in range(KEPT_BINS)})))
    assert len(bars(svg, KEPT)) == KEPT_BINS
    assert not bars(svg, CLIPPED)
    assert not Picture(svg).all("path", stroke_opacity="0.5")
    assert len(svg) < 4_000


def test_of_many_tensors_those_that_lose_most_are_drawn_in_their_order() -> None:
    tensors = [tensor(f"t{k:02}", -1.0, 4.0, {0: k, 48: 1000}) for k in range(20)]
    picture = Picture(ranges_svg(ranges(*tensors), most=3)).check()
    assert [text for text in picture.words if re.fullmatch(r"t\d\d", text)] == ["t17", "t18", "t19"]
    assert "The 3 of 20 tensors that lose most values." in " ".join(picture.words)
    whole = Picture(ranges_svg(ranges(*tensors), most=None)).check()
    assert len([text for text in whole.words if re.fullmatch(r"t\d\d", text)]) == 20


def test_a_tensor_of_zeros_and_a_hostile_name_are_drawn() -> None:
    zeros = TensorRange(name=HOSTILE, low=0, high=1, lowest=0, highest=0, zeros=9, counts=(0,) * KEPT_BINS)
    picture = Picture(ranges_svg(ranges(zeros))).check()
    assert not picture.all("script")
    assert "0 to 0, kept 0 to 1, 100 % zeros" in " ".join(picture.words)
