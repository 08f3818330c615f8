"""`glyphpress targets`: the runtimes, boards and emulated processors that can run an artifact."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.groups import NearestGroup
from toolchain.cli.options import json_option, run_options

if TYPE_CHECKING:
    from targets.profiles import DeviceProfile
    from targets.target import Availability, Target
    from toolchain.core.context import RunContext


@click.group(cls=NearestGroup)
def targets() -> None:
    """List, show, check and set up the targets on which files run.

    \b
    Example:
      glyphpress targets list
    """


@targets.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List every target, the formats it runs, and whether it is available here; then device profiles.

    \b
    Example:
      glyphpress targets list --json
    """
    from targets import catalog
    from targets.profiles import profile_names

    known = catalog.every()
    probed = {name: _probed(target) for name, target in known.items()}
    profiles = [_profile(name) for name in profile_names()]
    if as_json:
        rows = [
            {"name": name, "formats": sorted(target.formats)} | asdict(probed[name]) for name, target in known.items()
        ]
        console.emit("targets-list", {"targets": rows, "profiles": [asdict(profile) for profile in profiles]})
        return
    for name, target in known.items():
        state = "available" if probed[name].ok else f"not here: {probed[name].reason}"
        console.tell(f"{name:18} {','.join(sorted(target.formats)):15} {state}")
    console.tell(f"{'ssh://[USER@]HOST':18} {'onnx,ort,tflite':15} a board; `glyphpress targets setup` prepares it")
    for profile in profiles:
        console.tell(f"{profile.name:34} {profile.summary}")


def _probed(target: Target) -> Availability:
    """Return whether a target is available; if probing it fails, why, so that the other targets are still listed."""
    from targets.target import Availability

    try:
        return target.probe()
    except OSError as error:
        return Availability(False, f"{error.filename or target.name}: {error.strerror}", "repair it, then list again")


def _profile(name: str) -> DeviceProfile:
    from targets.errors import UnknownTarget
    from targets.profiles import DeviceProfile

    try:
        return DeviceProfile.load(name)
    except UnknownTarget as error:
        return DeviceProfile(name, summary=f"not usable: {error}")


@targets.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@json_option
def probe(name: str, as_json: bool) -> None:
    """Check whether a target can run here; if not, exit 4 with the reason and the fix.

    \b
    Example:
      glyphpress targets probe ort-cpu
    """
    from targets import catalog
    from targets.errors import TargetUnavailable
    from targets.target import Availability

    try:
        state = catalog.get(name).probe()
    except TargetUnavailable as error:  # a profile that names no host
        state = Availability(False, error.reason.removeprefix(f"{name}: "), error.fix)
    if as_json:
        console.emit("targets-probe", {"name": name} | asdict(state))
    elif state.ok:
        console.tell(f"{name}: available")
    if not state.ok:
        raise TargetUnavailable(f"{name}: {state.reason}; {state.fix}")


@targets.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a target's formats and settings, or a device profile: how to reach it, its stand-in, CPU and budgets.

    \b
    Example:
      glyphpress targets show raspberry-pi-4
    """
    from targets import catalog
    from targets.profiles import DeviceProfile, is_profile

    if is_profile(name):
        facts = asdict(DeviceProfile.load(name))
    else:
        target = catalog.get(name)
        facts = {"name": name, "summary": target.summary, "formats": sorted(target.formats)}
        facts["settings"] = target.settings
    if as_json:
        console.emit("targets-show", facts)
        return
    for key, value in facts.items():
        for line in _lines(value):
            console.tell(f"{key:10} {line}")
            key = ""  # noqa: PLW2901 (the name stands on the first line only)


def _lines(value: object) -> list[str]:
    """Return a value as lines; none for an empty one."""
    if isinstance(value, dict):
        return [f"{key} = {_text(setting)}" for key, setting in value.items()]
    return [_text(value)] if value not in ("", (), []) else []


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


@targets.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@run_options(force=True)
@json_option
def setup(name: str, context: RunContext, as_json: bool) -> None:
    """Prepare a board over ssh (copy the agent and its wheels), or build the root folder of the emulated processors.

    What is there already is left as it is. The board needs ssh and Python 3.9, but no network.

    \b
    Example:
      glyphpress targets setup ssh://pi@kitchen
    """
    from targets import catalog

    done = catalog.get(name).set_up(force=context.force, progress=context.progress)
    if as_json:
        console.emit("targets-setup", {"name": name, "done": done})
        return
    for line in done or [f"{name}: nothing to do, everything is there"]:
        console.tell(line)
