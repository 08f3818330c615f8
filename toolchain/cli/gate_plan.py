"""`glyphpress gate plan`: how many images a margin needs, before anybody collects any."""

from __future__ import annotations

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from toolchain.cli import console, options

CHANCE = options.Finite(0.5, 1, min_open=True, max_open=True)


@click.command()
@click.option("--margin", type=options.POINTS, help="Largest drop in accuracy that should pass.")
@options.policy_option
@click.option(
    "--classes", type=click.IntRange(2), default=47, show_default=True, help="With --policy: number of classes."
)
@click.option(
    "--discordance",
    required=True,
    type=options.POINTS,
    help="Share of the images that only one of the two files reads correctly.",
)
@click.option(
    "--drop", type=options.POINTS, default="0pp", show_default=True, help="With --margin: the candidate's true drop."
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
    policy_words: str | None,
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
    if (margin is None) == (policy_words is None):
        raise click.UsageError("give either --margin, for one limit, or --policy, for all of a policy")
    _refuse("--margin" if margin is None else "--policy", ("drop", "confidence") if margin is None else ("classes",))
    from toolchain.report.planned import show_plan, show_policy_plan

    if margin is None:
        from toolchain.gate.policy import choose_policy
        from toolchain.gate.policy_plan import plan_policy

        whole = plan_policy(choose_policy(policy_words), discordance, classes=classes, power=power)
        if as_json:
            console.emit("gate-plan-policy", whole.to_dict())
        else:
            show_policy_plan(whole, console.out())
        return
    from toolchain.gate.plan import plan as make_plan

    made = make_plan(margin, discordance, drop=drop, confidence=confidence, power=power)
    if as_json:
        console.emit("gate-plan", made.to_dict())
    else:
        show_plan(made, console.out())


def _refuse(needed: str, names: tuple[str, ...]) -> None:
    """Refuse options that belong to the other kind of plan: they would do nothing."""
    for name in names:
        if get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} goes with {needed}; leave it out")
