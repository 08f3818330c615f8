"""What is known of the processor that a target word leads to."""

from __future__ import annotations

from collections.abc import Collection

from targets.catalog import address
from targets.device import DeviceProfile, is_profile
from targets.machine import machine_state

HERE = ("ort-cpu", "litert-cpu")
"""The runtimes that take this machine's processor as it is."""


def isa(word: str) -> Collection[str]:
    """Return its flags, as `machine_state` names them; none where they are not known.

    A profile says them itself, else a board that it leads to is asked; raises as opening that would.
    """
    if is_profile(word):
        features = DeviceProfile.load(word).features
        return features or isa(address(word))
    family, _, rest = word.partition(":")
    if family == "arm64":
        from targets.arm64.processors import PROCESSORS

        return PROCESSORS[rest].features.split()
    if family == "ssh":
        from targets.ssh.address import Address
        from targets.ssh.target import board

        told, _ = board(Address.parse(rest)).channel().request("hello")
        return tuple(told["machine"].get("isa", ()))
    return tuple(machine_state().get("isa", ())) if word.split(",", maxsplit=1)[0] in HERE else ()
