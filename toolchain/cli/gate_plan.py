"""`glyphpress gate plan`: how many images decide a margin."""

from __future__ import annotations

import rich_click as click

from toolchain.cli import console, options, values

CHANCE = values.Finite(0.5, 1, min_open=True, max_open=True)


@click.command()
@click.option("--margin", type=values.POINTS, help="Largest drop in accuracy that should pass.")
@options.limit_options()
@click.option(
    "--classes", type=values.Whole(2), default=47, show_default=True, help="With --policy: number of classes."
)
@click.option(
    "--discordance",
    required=True,
    type=values.POINTS,
    help="Share of the images that only one of the two files reads correctly.",
)
@click.option(
    "--drop", type=values.POINTS, default="0pp", show_default=True, help="With --margin: the candidate's true drop."
)
@click.option(
    "--confidence", type=CHANCE, default=0.95, show_default=True, help="With --margin: confidence of PASS and of FAIL."
)
@click.option(
    "--power",
    multiple=True,
    type=CHANCE,
    default=(0.8, 0.9),
    show_default=True,
    help="Wanted chance of PASS (repeatable).",
)
@options.json_option
def plan(
    *,
    margin: float | None,
    limits: options.Limits,
    classes: int,
    discordance: float,
    drop: float,
    confidence: float,
    power: tuple[float, ...],
    as_json: bool,
) -> None:
    """Print how many images decide a margin, and what the gate would say with other numbers of images.

    With --margin: for that one limit, exactly. With --policy: for all its limits that depend on right and wrong
    answers, by simulating a candidate without a drop. `glyphpress compare` prints the discordance of two files like
    yours: lost plus gained.

    \b
    Example:
      glyphpress gate plan --margin 0.3pp --discordance 1%
      glyphpress gate plan --policy default --discordance 1%
    """
    if (margin is None) == (not limits):
        raise click.UsageError("give either --margin, for one limit, or --policy, for all of a policy")
    if margin is None:
        _refuse_options(("drop", "confidence"), needed="--margin")
    else:
        _refuse_options(("classes",), needed="--policy")
    from toolchain.core.json_codec import to_json
    from toolchain.report.gate_terminal import show_plan, show_policy_plan

    if margin is None:
        from toolchain.gate.plan import plan_policy

        policy_plan = plan_policy(limits.chosen(), discordance, classes=classes, power=power)
        if as_json:
            console.emit("gate-plan-policy", to_json(policy_plan))
        else:
            show_policy_plan(policy_plan, console.out())
        return
    from toolchain.gate.plan import plan as plan_margin

    margin_plan = plan_margin(margin, discordance, drop=drop, confidence=confidence, power=power)
    if as_json:
        console.emit("gate-plan", to_json(margin_plan))
    else:
        show_plan(margin_plan, console.out())


def _refuse_options(names: tuple[str, ...], *, needed: str) -> None:
    """Raise UsageError for options of the other kind of plan, since they would do nothing."""
    for name in names:
        if options.was_given(name):
            raise click.UsageError(f"--{name} goes with {needed}; leave it out")
