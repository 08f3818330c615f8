"""`glyphpress gate baseline`: the answers of a float model, stored so that CI need not hold it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.argument("artifact", type=options.FILE)
@options.data_option
@options.classes_option
@options.policy_option
@options.target_option
@click.option("-o", "--output", type=options.FILE, required=True, help="Where to store it (.npz).")
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
    """Store a float model's answers, signed by a digest, so that CI need not hold the model.

    Under scanner damage too where the policy has [stress]. The lines that it prints pin the policy to this baseline.

    \b
    Example:
      glyphpress gate baseline float.onnx --data emnist:balanced -o baseline.npz
    """
    from toolchain.commands.gate import store_baseline
    from toolchain.verdict.policy import choose_policy

    policy, root = choose_policy(policy_words), data_root
    with console.progress() as progress:
        made = store_baseline(
            artifact, policy, data, output, data_root=root, target=target, force=force, progress=progress
        )
    if as_json:
        facts = {"digest": made.digest, "path": str(output), "images": len(made.evaluation)}
        console.emit("gate-baseline", facts | {"damage": [one.kind for one in made.stress]})
    else:
        console.say(f"wrote {output}; these lines in a policy pin it:")
        click.echo(f'[baseline]\ndigest = "{made.digest}"')
