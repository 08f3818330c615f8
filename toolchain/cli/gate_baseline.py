"""`glyphpress gate baseline`: the answers of a float model, stored so that CI need not hold it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import options


@click.command()
@click.argument("artifact", type=options.FILE)
@options.data_option
@options.policy_option
@options.target_option
@click.option("-o", "output", type=options.FILE, required=True, help="Where to store it (.npz).")
@options.force_option
@options.json_option
def baseline(
    *,
    artifact: Path,
    data: str,
    data_root: Path | None,
    policy_words: str | None,
    target: str | None,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Store a baseline's answers, under scanner damage too where the policy asks for it, signed by a digest.

    \b
    Example:
      glyphpress gate baseline float.onnx --data emnist:balanced -o baseline.npz
    """
    raise NotImplementedError
