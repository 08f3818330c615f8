"""What is left of texts that have no room."""

from __future__ import annotations

from toolchain.report.charts.text import fitted, short_names, shortened, text_width, wrapped


def test_a_text_is_shortened_in_its_middle_and_fits() -> None:
    name = "features.block7.expand/Conv2D.int8.tflite"
    short = shortened(name, 120)
    assert text_width(short) <= 120
    assert short.startswith("feat")
    assert short.endswith("tflite")
    assert shortened("a.onnx", 120) == "a.onnx"
    assert shortened(name, 1) == "…"
    lines = wrapped("one two three four", 60)
    assert " ".join(lines) == "one two three four"
    assert all(text_width(line) <= 60 for line in lines)


def test_names_lose_a_long_common_start_only() -> None:
    assert short_names(["letters.int8.onnx", "letters.int4.onnx"]) == ["…int8.onnx", "…int4.onnx"]
    assert short_names(["a.onnx", "a.tflite"]) == ["a.onnx", "a.tflite"]
    assert short_names(["letters.onnx"]) == ["letters.onnx"]
    assert short_names([]) == []
    assert short_names(["letters.onnx", "letters.onnx"]) == ["letters.onnx"] * 2


def test_names_that_fit_only_shortened_keep_what_tells_them_apart() -> None:
    ends = [f"a_long_common_start_of_names_{k}" for k in range(4)]
    starts = [f"{k}_names_with_a_long_common_end" for k in range(4)]
    for names in (ends, starts):
        short = fitted(names, 90)
        assert len(set(short)) == 4
        assert all(text_width(name) <= 90 for name in short)
    assert fitted(["a", "b"], 90) == ["a", "b"]
    assert fitted([], 90) == []
