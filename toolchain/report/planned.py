"""A plan as lines on a terminal: the images that are needed, and the chances on other numbers of them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from toolchain.core.quantities import POINTS
from toolchain.core.visible import shown
from toolchain.gate.plan import Plan
from toolchain.gate.policy_plan import MOST_IMAGES, PolicyPlan
from toolchain.report.table import unfold

_COLUMNS = ("images", "PASS", "wrong FAIL", "FAIL at twice the margin", "wrong PASS at the margin")


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan; `-` stands where the truth cannot be had at that discordance."""
    unfold(console)
    asked = f"{POINTS.text(plan.margin)} at {plan.confidence * 100:.4g} % confidence"
    truth = f"{POINTS.text(plan.drop)}, on {plan.discordance * 100:.4g} % of the images only one of the two is right"
    lines = [f"margin     {asked}", f"true drop  {truth}"]
    lines += [f"needed     about {one.images:,} images for {one.power * 100:.4g} % power" for one in plan.needed]
    for line in [*lines, ""]:
        console.print(shown(line))
    console.print(_chances(plan))


def show_policy_plan(plan: PolicyPlan, console: Console) -> None:
    """Print how often a candidate without a drop passes each limit of a policy, and all of them."""
    unfold(console)
    truth = f"0pp, on {plan.discordance * 100:.4g} % of the images only one of the two is right"
    lines = [f"true drop  {truth}", f"simulated  {plan.draws:,} candidates, {plan.classes} classes with as many images"]
    lines += [f"left out   {', '.join(plan.left_out)}"] if plan.left_out else []
    for one in plan.needed:
        alone = ", ".join(f"{name} alone {_images(count)}" for name, count in one.limits.items())
        lines.append(f"needed     about {_images(one.all)} images for {one.power * 100:.4g} % power ({alone})")
    for line in [*lines, ""]:
        console.print(shown(line))
    table = _columns("images", *(f"{name} PASS" for name in plan.rows[0].passes), "all PASS", "wrong FAIL")
    for row in plan.rows:
        chances = (*row.passes.values(), row.all_pass, row.wrong_fail)
        table.add_row(f"{row.images:,}", *(f"{one * 100:.1f} %" for one in chances))
    console.print(table)


def _images(count: int | None) -> str:
    return f"more than {MOST_IMAGES:,}" if count is None else f"{count:,}"


def _columns(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _chances(plan: Plan) -> Table:
    table = _columns(*_COLUMNS)
    for row in plan.rows:
        chances = (row.right_pass, row.false_fail, row.right_fail, row.false_pass)
        table.add_row(f"{row.images:,}", *("-" if one is None else f"{one * 100:.1f} %" for one in chances))
    return table
