"""`glyphpress gate`: whether a candidate may ship; the exit code says it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from toolchain.cli import console, options


@click.command()
@click.option("--baseline", required=True, type=options.FILE, help="Float artifact, or its saved evaluation (.npz).")
@click.option("--candidate", required=True, type=options.FILE, help="Artifact to judge, or its saved evaluation.")
@options.optional_data_option
@options.policy_option
@click.option("--max-drop", "drop", type=options.POINTS, help="Margin of accuracy; without a policy file 0.3pp.")
@click.option("--max-size", "size", type=options.SIZE, help="Largest file.")
@click.option("--max-p50", "p50", type=options.DURATION, help="Largest median latency at batch 1.")
@click.option("--max-p95", "p95", type=options.DURATION, help="Largest P95 latency at batch 1.")
@options.target_option
@options.threads_option(1)
@options.json_option
def gate(
    *,
    baseline: Path,
    candidate: Path,
    data: str | None,
    data_root: Path | None,
    policy_words: str | None,
    target: str | None,
    threads: int,
    as_json: bool,
    **limits: float | None,
) -> None:
    """Judge a candidate: exit 0 passed, 1 failed, 5 inconclusive.

    Accuracy passes when the one-sided 95 % Tango bound of the paired drop lies below the margin.

    \b
    Example:
      glyphpress gate --baseline float.npz --candidate int8.npz --max-size 250KB
    """
    from calibration.dataset import load
    from toolchain.report.reading import show_comparison, show_verdicts
    from toolchain.verdict.compare import comparison
    from toolchain.verdict.gate import judge, overall, raise_for
    from toolchain.verdict.gather import gather
    from toolchain.verdict.policy import choose_policy
    from toolchain.verdict.subject import read_subject

    policy = choose_policy(policy_words, **limits)
    dataset = load(data, "test", data_root) if data else None
    train = load(data, "train", data_root) if data and policy.leaks else None
    with console.progress() as progress:
        base, own = (read_subject(file, dataset, target=target, progress=progress) for file in (baseline, candidate))
        evidence = gather(policy, base, own, dataset, train, threads=threads, progress=progress)
    verdicts, seen = judge(policy, evidence), comparison(evidence.pairs)
    if as_json:
        facts = {"policy": policy.to_dict(), "comparison": seen.to_dict()}
        judged = {"outcome": overall(verdicts), "verdicts": [verdict.to_dict() for verdict in verdicts]}
        console.emit("gate", judged | facts)
    else:
        show_comparison(seen, console.out())
        show_verdicts(verdicts, console.out())
    raise_for(verdicts)
