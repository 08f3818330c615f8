"""The pull request's Markdown as GitHub shows it, and its picture, in which every flipped character can be told."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from numpy.lib.stride_tricks import sliding_window_view

from targets.host.text import visible
from tests.fixtures.judgements import DAMAGED, LOOSE, ODD, STRICT, answers, concluded, gathered, with_damage
from tests.fixtures.small_readers import digits
from toolchain.report.pull_request import Flip, contact_sheet, flips, pull_request
from toolchain.report.tables import code_span, markdown_table, markdown_text

Table = list[list[str]]


def shown(token: Token) -> str:
    """The words of an inline token as a browser shows them."""
    parts = (part for part in token.children or [] if part.type in {"text", "code_inline", "image"})
    return "".join(part.content for part in parts)


def tables(markdown: str) -> list[Table]:
    """Every table as rows of the words in its cells; the parser, like GitHub's, cuts rows that are too long."""
    parsed: list[Table] = []
    cell = False
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        if token.type == "table_open":
            parsed.append([])
        elif token.type == "tr_open":
            parsed[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            cell = True
        elif token.type == "inline" and cell:
            parsed[-1][-1].append(shown(token))
            cell = False
    for table in parsed:
        assert {len(row) for row in table} == {len(table[0])}, table
    return parsed


def table(markdown: str, first: str) -> Table:
    """The table whose heading starts with `first`, without its heading."""
    (body,) = (body for heading, *body in tables(markdown) if heading[0] == first)
    return body


def test_it_says_the_outcome_and_each_limit_with_its_figures() -> None:
    markdown = pull_request(concluded(STRICT, gathered()), [gathered()])
    assert markdown.startswith("## glyphpress gate: INCONCLUSIVE")
    drop, size = table(markdown, "limit")
    assert drop[:2] == ["drop", "INCONCLUSIVE"]
    assert drop[2].endswith(" pp")
    assert drop[4] == "at most 0.300 pp"
    assert "images like these would decide" in drop[5]
    assert size[:5] == ["size (only warns)", "FAIL", size[2], "-", "at most 1.0 KB"]
    assert "599 images rightly" in markdown
    assert "sha256" in markdown


def test_of_a_real_file_that_lost_two_digits_it_names_them_and_what_they_are_read_as() -> None:
    markdown = pull_request(concluded(LOOSE, gathered(broken=True)), [gathered(broken=True)])
    assert {row[0] for row in table(markdown, "worst classes")[:2]} == {"4", "7"}
    assert re.search(r"New confusions: `[47]` read as `\d` \+\d", markdown)
    parts = table(markdown, "part")
    assert [row[1] for row in parts[:2]] == ["FAIL", "FAIL"]
    assert len(parts) == 10
    assert "classes: 10 parts, " in markdown


def test_class_names_that_mean_something_to_markdown_break_no_table() -> None:
    evidence = with_damage(answers(400, 10))
    markdown = pull_request(concluded(DAMAGED, evidence), [evidence], picture="gate.flips.png")
    classes, damage, places = (rows[1:] for rows in tables(markdown) if rows[0][0] == "part")
    assert {row[0] for row in classes} == set(ODD)
    assert [row[:2] for row in (*damage, *places)] == [["blur", "FAIL"], ["ort-reference", "FAIL"]]
    flipped = [
        row for rows in tables(markdown) if rows[0][:2] == ["image", "label"] and len(rows[0]) == 5 for row in rows[1:]
    ]
    assert len(flipped) == 60
    for row in flipped:
        assert {row[1], *(rows.rpartition(" ")[0] for rows in row[2:4])} <= set(ODD)
    assert table(markdown, "damage: drop in pp") == [["blur", "40.00", "0.00", "0.00", "0.00", "100.00", "100.00"]]
    other_targets = [rows for rows in tables(markdown) if rows[0] == ["image", "label", "here", "there"]]
    assert other_targets == [[["image", "label", "here", "there"], ["7", "|", "`", "<"]]]
    assert "1 of 18,800 images read differently" in markdown


def test_the_picture_is_linked_once_or_the_reader_is_told_how_to_get_it() -> None:
    judgement = concluded(LOOSE, gathered())
    linked = pull_request(judgement, [gathered()], picture="gate.flips.png")
    assert linked.count("](gate.flips.png)") == 1
    assert "--data" not in linked
    page = pull_request(judgement, [gathered()])
    assert "![" not in page
    assert "<summary>16 of 16 characters that flipped</summary>" in page
    stored = replace(gathered(), flipped=None)
    bare = pull_request(concluded(LOOSE, stored), [stored])
    assert "gate again with `--data`" in bare
    assert "16 of 16 characters that flipped" in bare


def test_nothing_flipped_is_said_in_a_line() -> None:
    same = answers(0, 0)
    assert "No answer changed." in pull_request(concluded(STRICT, same), [same])


def test_several_candidates_are_compared_and_each_has_its_part() -> None:
    rivals = answers(5, 5), answers(400, 0, name="bad.onnx", p50=67_000)
    markdown = pull_request(concluded(STRICT, *rivals), rivals, picture="gate.flips.png")
    rows = table(markdown, "candidate")
    assert [row[:2] for row in rows] == [["int8.onnx ships", "PASS"], ["bad.onnx", "FAIL"]]
    assert [row[5] for row in rows] == ["-", "67.0 us"]
    assert "corrected for a choice among 2" in markdown
    assert [line for line in markdown.splitlines() if line.startswith("### ")] == [
        "### `int8.onnx`: PASS",
        "### `bad.onnx`: FAIL",
    ]
    assert markdown.count("](gate.flips.png)") == 1


words = st.text(st.characters(exclude_categories=["Cs", "Cn", "Cc"]) | st.sampled_from("|`\\*_<>&[]~!#@$ "))


@settings(max_examples=200)
@given(words)
def test_any_words_are_shown_as_they_are_in_a_cell(text: str) -> None:
    markdown = markdown_table(["a", "b", "c"], [[markdown_text(text), code_span(text), "end"]])
    ((_, row),) = tables(markdown)
    plain = visible(text)
    assert [row[0], row[2]] == [plain.strip(), "end"]
    # A code span of spaces only stays one space or more; anything else is shown exactly.
    assert row[1].strip() == plain.strip()


@pytest.mark.parametrize("text", ["@octocat", "#12", "$x$"])
def test_github_makes_no_mention_issue_or_formula_of_a_name(text: str) -> None:
    # GitHub looks for these within one run of text: an element between the mark and the name ends it.
    rendered = MarkdownIt("commonmark", {"html": True}).render(markdown_text(text))
    runs = re.split(r"<[^>]*>", rendered)
    assert html.unescape("".join(runs)).strip() == text
    assert text not in map(html.unescape, runs)


PICTURE = np.where(np.add.outer(np.arange(28), np.arange(28)) % 9 < 3, 255, 0).astype(np.uint8)


def tile(label: str = "O", before: str = "O", after: str = "0", kind: str = "lost", image: int = 7) -> Flip:
    return Flip(image, label, before, after, (0.5, 0.25), kind, PICTURE)  # type: ignore[arg-type]


def grey(*tiles: Flip, title: str = "int8.onnx") -> np.ndarray:
    """The sheet as a person sees it who sees no colours."""
    return np.asarray(contact_sheet([(title, tiles)]).convert("L"))


def test_a_real_candidate_s_flips_are_told_with_what_they_were_and_became() -> None:
    evidence = gathered()
    pairs, listed = evidence.pairs, flips(evidence)
    assert len(listed) == int(pairs.flipped.sum()) > 5
    assert [flip.kind for flip in listed] == sorted(
        (flip.kind for flip in listed), key=["lost", "other", "gained"].index
    )
    assert {flip.kind for flip in listed} == {"lost", "other", "gained"}
    for flip in listed:
        labels = (pairs.classes[int(side[flip.image])] for side in (pairs.labels, pairs.before, pairs.after))
        assert (flip.label, flip.before, flip.after) == tuple(labels)
        assert flip.picture is not None
        assert np.array_equal(flip.picture, digits().images[flip.image])
        assert (flip.label == flip.before, flip.label == flip.after) == {
            "lost": (True, False),
            "gained": (False, True),
            "other": (False, False),
        }[flip.kind]


def test_without_pictures_the_same_characters_are_told() -> None:
    evidence = gathered()
    with_pictures, without = flips(evidence), flips(replace(evidence, flipped=None))
    assert [flip.image for flip in without] == [flip.image for flip in with_pictures]
    assert {flip.picture for flip in without} == {None}
    assert len(flips(evidence, most=3)) == 3


def test_each_glyph_stands_on_the_sheet_pixel_by_pixel_as_dark_on_light() -> None:
    listed = flips(gathered())
    pixels = np.asarray(contact_sheet([("int8.onnx", listed)]).convert("L"))
    for flip in listed:
        glyph = np.kron(255 - np.asarray(flip.picture), np.ones((3, 3), np.uint8))
        # One row of the glyph that is not blank, looked for in every row of the sheet.
        line = int(np.argmax(np.ptp(glyph, axis=1)))
        windows = sliding_window_view(pixels, glyph.shape[1], axis=1)
        places = np.argwhere((windows == glyph[line]).all(axis=2))
        assert any(np.array_equal(pixels[y - line :, x:][: len(glyph), : len(glyph)], glyph) for y, x in places)


def test_lost_gained_and_other_differ_in_form_not_only_in_colour() -> None:
    frames = [grey(tile(kind=kind)) < 200 for kind in ("lost", "gained", "other")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.count_nonzero(frames[first] ^ frames[second]) > 200


def test_label_and_answers_are_written_below_in_that_order() -> None:
    plain = grey(tile())
    for change in ({"label": "M"}, {"before": "M"}, {"after": "M"}, {"image": 8}):
        rows, columns = np.nonzero(plain != grey(replace(tile(), **change)))
        below = rows.min() - 14 - 3 * 17 - 94
        assert below > 0, "within the glyph"
        line = {"label": 0, "before": 1, "after": 1, "image": 2}[next(iter(change))]
        assert line * 17 <= below <= rows.max() - 14 - 3 * 17 - 94 <= (line + 1) * 17 + 4
        if line == 1:
            assert (columns.mean() < 14 + 47) == ("before" in change)


@pytest.mark.parametrize("name", ["京", "é", " ", "", "\x1b", "a name that is far too long for a tile", "|`<&"])
def test_any_class_name_fits_its_tile(name: str) -> None:
    alone = grey(tile(), tile())
    named = grey(tile(name, name, name), tile())
    assert named.shape == alone.shape
    # The second tile is not written over, and the first is not left empty.
    assert np.array_equal(named[60:, 14 + 94 + 14 :], alone[60:, 14 + 94 + 14 :])
    assert not np.array_equal(named, alone)


def test_names_that_the_font_lacks_are_told_apart() -> None:
    assert not np.array_equal(grey(tile("京")), grey(tile("都")))


def test_candidates_stand_below_each_other_and_the_same_flips_give_the_same_bytes() -> None:
    first, second = (flips(answers(lost, 3, name=f"{lost}.onnx")) for lost in (5, 40))
    sheets = [contact_sheet([("a", first), ("b", second)]) for _ in range(2)]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    alone = [contact_sheet([("a", first)]).height, contact_sheet([("b", second)]).height]
    assert max(alone) < sheets[0].height <= sum(alone)
