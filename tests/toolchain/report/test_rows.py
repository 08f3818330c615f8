"""The choice of the winner, as a pure function of rows as they were measured, with and without VNNI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.fixtures.small_readers import pair
from toolchain.commands.press import extra_recipe
from toolchain.evaluation.compare import Pairs, compare
from toolchain.gate.gate import Evidence, judge
from toolchain.gate.policy import policy_from
from toolchain.report.report import Row
from toolchain.report.rows import Prefer, Winner, chosen, fastest_float
from toolchain.stats.decision import Outcome

POLICY = policy_from({"drop": {"max": "0.3pp"}})

File = tuple[str, int, float]
"""recipe.format, bytes, cost: microseconds, or million instructions."""

LENET: tuple[tuple[str, int], ...] = (
    ("float.onnx", 248_524),
    ("float.tflite", 249_792),
    ("static-int8.onnx", 66_439),
    ("static-int8.tflite", 69_680),
)
CNN: tuple[tuple[str, int], ...] = (
    ("float.onnx", 854_685),
    ("float.tflite", 855_984),
    ("static-int8.onnx", 220_461),
    ("static-int8.tflite", 226_496),
    ("dynamic-int8.onnx", 219_828),
)


def files(sizes: Sequence[tuple[str, int]], *costs: float) -> list[File]:
    return [(name, size, cost) for (name, size), cost in zip(sizes, costs, strict=True)]


# Medians of one thread on an AMD EPYC with AVX-512 VNNI, and on the same one with every wider instruction than AVX2
# hidden from the runtimes; each interval was about 2 % wide. LeNet-5 and the shipped cnn-small.
MEASURED = {
    "lenet with VNNI": files(LENET, 15.8, 12.8, 41.5, 10.2),
    "lenet without": files(LENET, 18.7, 17.6, 40.4, 40.6),
    "cnn with VNNI": files(CNN, 80.0, 76.1, 32.6, 22.0, 80.8),
    "cnn without": files(CNN, 125.8, 141.8, 76.5, 138.5, 126.3),
}
# Row 62 of the same file: of the time of float.onnx, on another machine without VNNI.
REGRETTED = files(LENET, 100.0, 88.0, 130.0, 128.0)


def rows(
    made: Sequence[File], lost: dict[str, int] | None = None, *, width: float = 0.01, counted: bool = False
) -> tuple[list[Row], list[Evidence]]:
    """Rows and evidence as a press has them; lost: images of 18,800 that a file loses, and as many that change."""
    made_rows, evidence = [], []
    for number, (name, size, cost) in enumerate(made):
        recipe, _, kind = name.partition(".")
        base, candidate = pair((lost or {}).get(name, 0), 5 * bool((lost or {}).get(name)), 18_800, size=size)
        candidate, base = replace(candidate, artifact=name), replace(base, artifact_bytes=made[0][1])
        proof = Evidence(Pairs.of(base, candidate))
        row = Row.of(
            candidate, format=kind, recipe=recipe, comparison=compare(base, candidate), verdicts=judge(POLICY, proof)
        )
        if number == 0:
            row = replace(Row.of(base, format=kind, recipe=recipe), name=name, bytes=size)
        cost_of = {"instructions": cost * 1e6} if counted else {"p50_ns": cost * 1e3}
        made_rows.append(replace(row, **cost_of))
        evidence += [proof] * (number > 0)
    fastest = fastest_float(made_rows)
    assert fastest is not None
    ratios = [(row.cost or 0.0) / (fastest.cost or 1.0) for row in made_rows]
    known = [None if counted else (ratio * (1 - width), ratio * (1 + width)) for ratio in ratios]
    return [
        replace(row, float_ratio=ratio, float_ratio_interval=interval)
        for row, ratio, interval in zip(made_rows, ratios, known, strict=True)
    ], evidence


def choice(made: Sequence[File], prefer: Prefer = "balanced", **settings: object) -> Winner:
    return chosen(*rows(made, **settings), POLICY, prefer)  # type: ignore[arg-type]


def won(choice: Winner) -> str:
    (best,) = [row.name for row in choice.rows if row.winner]
    return best


@pytest.mark.parametrize(
    ("made", "balanced", "size", "speed"),
    [
        pytest.param("lenet with VNNI", "static-int8.tflite", "static-int8.onnx", "static-int8.tflite"),
        pytest.param("lenet without", "float.tflite", "static-int8.onnx", "float.tflite"),
        pytest.param("cnn with VNNI", "static-int8.tflite", "dynamic-int8.onnx", "static-int8.tflite"),
        pytest.param("cnn without", "static-int8.onnx", "dynamic-int8.onnx", "static-int8.onnx"),
    ],
)
def test_row62_the_choice_is_right_on_both_kinds_of_processor(made: str, balanced: str, size: str, speed: str) -> None:
    expected = {"balanced": balanced, "size": size, "speed": speed}
    for prefer in ("balanced", "size", "speed"):
        winner = choice(MEASURED[made], prefer)  # type: ignore[arg-type]
        assert won(winner) == expected[prefer], prefer
        assert winner.winners == expected


def test_row62_what_is_slower_than_float_never_wins_by_default_and_float_goes_by_its_own_name() -> None:
    winner = choice(REGRETTED)
    assert won(winner) == "float.tflite"
    assert winner.notes[0] == (
        "float is given back: ship float.tflite, which is the fastest of the float files that pass; "
        "no pressed file is shown to pass that is smaller and does not take over 5 % longer"
    )


@pytest.mark.parametrize("made", ["lenet without", "cnn without", "lenet with VNNI"])
def test_row62_with_the_file_that_is_added_there_is_always_one_that_is_small_and_not_slower(made: str) -> None:
    measured = MEASURED[made]
    need = extra_recipe(*rows(measured), POLICY)
    assert need == (("weight-int8", "float.tflite") if made == "lenet without" else None)
    if need:
        # As measured: 68,640 bytes and 1.00 [0.99, 1.01] of float's time.
        measured = [*measured, ("weight-int8.tflite", 68_640, 17.7)]
        assert extra_recipe(*rows(measured), POLICY) is None
        assert won(choice(measured)) == "weight-int8.tflite"


def test_row62_a_second_file_is_added_where_the_first_reads_worse_and_none_without_hope() -> None:
    measured = [*MEASURED["lenet without"], ("weight-int8.tflite", 68_640, 17.7)]
    assert extra_recipe(*rows(measured, {"weight-int8.tflite": 3_000}), POLICY) == ("float16", "float.tflite")
    strict = policy_from({"drop": {"max": "0.3pp"}, "size": {"max": "10KB"}})
    judged, evidence = rows(measured)
    assert extra_recipe(judged, evidence, strict) is None, "it answers as float does and did not pass"
    assert extra_recipe(judged[:2], evidence[:1], POLICY) is None, "only float was asked for"
    unshowable = policy_from({"drop": {"max": "0.001pp"}})
    slow, proof = rows(MEASURED["lenet without"], {"static-int8.onnx": 9, "static-int8.tflite": 9})
    assert extra_recipe(slow, proof, unshowable) is None, (
        "so few images could not even show of float itself that it passes"
    )


@pytest.mark.parametrize("prefer", ["balanced", "speed"])
def test_row6_the_fastest_float_file_that_passes_wins_where_no_pressed_file_does(prefer: Prefer) -> None:
    made = files(LENET, 100.0, 58.0, 130.0, 110.0)
    # The faster float file is larger by 2 %.
    made[1] = ("float.tflite", 253_500, 58.0)
    assert won(choice(made, prefer)) == "float.tflite"
    every = {name: 3_000 for name, *_ in made if not name.startswith("float")}
    assert won(choice(made, prefer, lost=every)) == "float.tflite"
    assert won(choice(made, prefer, lost=every | {"float.tflite": 3_000})) == "float.onnx"


def test_a_cost_that_is_not_shown_to_be_more_by_5_percent_is_no_regret() -> None:
    slower = [*files(LENET[:1], 100.0), ("weight-int8.onnx", 65_447, 107.0)]
    assert won(choice(slower, width=0.03)) == "weight-int8.onnx"
    assert won(choice(slower, width=0.01)) == "float.onnx"


def test_of_sizes_within_5_percent_the_faster_file_wins_and_of_costs_within_5_percent_the_smaller() -> None:
    made = [
        *files(LENET[:1], 100.0),
        ("a.onnx", 100_000, 60.0),
        ("b.onnx", 104_000, 40.0),
        ("c.onnx", 120_000, 39.0),
    ]
    assert choice(made).winners == {"balanced": "b.onnx", "size": "a.onnx", "speed": "b.onnx"}


def test_it_says_why_the_winner_won_and_who_would_by_another_measure() -> None:
    assert choice(MEASURED["lenet with VNNI"]).notes == (
        "winner: static-int8.tflite (70 KB, 0.80 of the time of float.tflite): the smallest that passes and is not "
        "shown to take over 5 % longer than float.tflite; of those within 5 % of that size it is the fastest; since 2 "
        "files were compared, each had to pass at a higher confidence",
        "by another measure: --prefer size: static-int8.onnx (66 KB, 3.24 of the time of float.tflite); "
        "--prefer speed: the winner too",
    )


@pytest.mark.parametrize("prefer", ["balanced", "size", "speed"])
def test_a_smaller_and_faster_file_that_passes_only_alone_is_named(prefer: Prefer) -> None:
    made = [*MEASURED["cnn with VNNI"], ("pruned.tflite", 121_000, 11.0)]
    sure, unsure = choice(made, prefer), choice(made, prefer, lost={"pruned.tflite": 45})
    assert won(sure) == "pruned.tflite"
    assert len(sure.notes) == 2
    assert next(row for row in unsure.rows if row.name == "pruned.tflite").outcome is Outcome.PASS
    assert won(unsure) == choice(MEASURED["cnn with VNNI"]).winners[prefer]
    assert "since 4 files were compared, each had to pass at a higher confidence" in unsure.notes[0]
    assert unsure.notes[1] == (
        "not chosen: pruned.tflite passes alone, but not at the higher confidence that is required since 4 files were "
        "compared; more test images may decide"
    )


def test_row7_where_instructions_were_counted_nothing_is_called_slower() -> None:
    for name, prefer in [("lenet without", "balanced"), ("cnn without", "balanced"), ("cnn without", "speed")]:
        notes = " ".join(choice(MEASURED[name], prefer, counted=True).notes)  # type: ignore[arg-type]
        assert "instructions" in notes
        assert not [word for word in ("slower", "longer", "faster", "fastest", "time") if word in notes], notes


def test_what_has_no_cost_or_was_not_pressed_has_no_winner() -> None:
    judged, evidence = rows(MEASURED["lenet with VNNI"])
    idle = [replace(row, p50_ns=None) for row in judged]
    assert not any(row.winner for row in chosen(idle, evidence, POLICY).rows)
    assert not any(row.winner for row in chosen(judged[:2], evidence[:1], POLICY).rows)
