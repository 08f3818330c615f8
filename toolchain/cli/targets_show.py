"""`glyphpress targets show`: what a target takes, or what a device profile says."""

from __future__ import annotations

from dataclasses import asdict

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.options import json_option


@click.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a target's formats and settings, or a device profile: how to reach it, its stand-in, CPU and budgets.

    \b
    Example:
      glyphpress targets show raspberry-pi-4
    """
    from targets import catalog
    from targets.device import DeviceProfile, is_profile

    if is_profile(name):
        facts = asdict(DeviceProfile.load(name))
    else:
        place = catalog.get(name)
        purpose = (type(place).__doc__ or "").partition("\n")[0]
        facts = {"name": name, "summary": purpose, "formats": sorted(place.formats)}
        facts["settings"] = getattr(place, "settings", {})
    if as_json:
        console.emit("targets-show", facts)
        return
    for key, value in facts.items():
        for line in _lines(value):
            console.tell(f"{key:10} {line}")
            key = ""  # noqa: PLW2901 (a list's first line alone bears the name)


def _lines(value: object) -> list[str]:
    """Return a value as lines; nothing for what is empty."""
    if isinstance(value, dict):
        return [f"{key} = {_words(one)}" for key, one in value.items()]
    return [_words(value)] if value not in ("", (), []) else []


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
