"""What a gate prints: the comparison and the verdicts of every candidate, or one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.cli import console

if TYPE_CHECKING:
    from toolchain.report.judgement import Judgement


def show(judgement: Judgement, next_steps: list[str], *, as_json: bool) -> None:
    """Print the judgement on stdout, and what a user can do next.

    As JSON it is what `--verdict` writes, and beside it `next_steps`, and `verdicts` and `comparison` of the candidate
    that won, or of the first where none did.
    """
    from toolchain.report.reading import show_comparison, show_verdicts, show_winner

    if as_json:
        whole = judgement.to_dict()
        named = [one for one in whole["candidates"] if one["file"]["name"] == judgement.winner]
        first = (named or whole["candidates"])[0]
        beside = {"verdicts": first["verdicts"], "comparison": first["comparison"], "next_steps": next_steps}
        console.emit("gate", whole | beside)
        return
    out = console.out()
    for judged in judgement.candidates:
        show_comparison(judged.comparison, out)
        show_verdicts(judged.verdicts, out)
    show_winner(judgement, out)
    console.advise(next_steps)
