"""`glyphpress targets`: the places where an artifact can run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import rich_click as click

from toolchain.cli import complete, console
from toolchain.cli.groups import NearestGroup
from toolchain.cli.options import json_option
from toolchain.cli.targets_setup import setup
from toolchain.cli.targets_show import show

if TYPE_CHECKING:
    from targets.device import DeviceProfile
    from targets.target import Availability, Target


@click.group(cls=NearestGroup)
def targets() -> None:
    """List the places where artifacts run, show what they are, set them up, and say whether they can run here.

    \b
    Example:
      glyphpress targets list
    """


targets.add_command(show)
targets.add_command(setup)


@targets.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List every target, the formats it runs, and whether it is available here; then device profiles.

    \b
    Example:
      glyphpress targets list --json
    """
    from targets import catalog
    from targets.device import profile_names

    found = {name: catalog.get(name) for name in catalog.listed()}
    probed = {name: _probed(target) for name, target in found.items()}
    profiles = [_profile(name) for name in profile_names()]
    if as_json:
        rows = [{"name": n, "formats": sorted(t.formats)} | asdict(probed[n]) for n, t in found.items()]
        console.emit("targets-list", {"targets": rows, "profiles": [asdict(profile) for profile in profiles]})
        return
    for name, target in found.items():
        state = "available" if probed[name].ok else f"not here: {probed[name].reason}"
        console.tell(f"{name:18} {','.join(sorted(target.formats)):15} {state}")
    console.tell(f"{'ssh://[USER@]HOST':18} {'onnx,ort,tflite':15} a board; `glyphpress targets setup` readies it")
    for profile in profiles:
        console.tell(f"{profile.name:34} {profile.summary}")


def _probed(target: Target) -> Availability:
    """Return whether a target is available, or why that cannot be known, so that one fault does not hide the others."""
    from targets.target import Availability

    try:
        return target.probe()
    except OSError as error:
        return Availability(False, f"{error.filename or target.name}: {error.strerror}", "mend it, then list again")


def _profile(name: str) -> DeviceProfile:
    from targets.device import DeviceProfile
    from targets.errors import UnknownTarget

    try:
        return DeviceProfile.load(name)
    except UnknownTarget as error:
        return DeviceProfile(name, summary=f"not usable: {error}")


@targets.command()
@click.argument("name", metavar="TARGET", shell_complete=complete.TARGET)
@json_option
def probe(name: str, as_json: bool) -> None:
    """Say whether a target can run here; exit 4 where it cannot, with the reason and the fix.

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
